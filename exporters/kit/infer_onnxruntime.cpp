// One image to one class with ONNX Runtime: ./infer models/student.fp32.onnx photo.ppm
//
// The image is a binary PPM, PGM or, of four bands, PAM of the model's size (convert photo.jpg -resize 224x224!
// photo.ppm), so that nothing but ONNX Runtime's own library is needed. Where each pixel has a class, their shares are
// printed and the classes written to classes.pgm. Copy what you need.
//
//     g++ -O2 -std=c++17 infer.cpp -o infer -I$ONNXRUNTIME/include -L$ONNXRUNTIME/lib -lonnxruntime
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

// (H, W, C) bytes to (C, H, W) float32 in [0, 1]; mean and standard deviation are inside the model.
std::vector<float> readImage(std::string const& path, int64_t channels, int64_t height, int64_t width) {
    std::ifstream file(path, std::ios::binary);
    std::string const wanted = channels == 1 ? "PGM" : channels == 3 ? "PPM" : "PAM";
    std::string magic, word;
    int64_t foundWidth = 0, foundHeight = 0, foundChannels = channels, highest = 0;
    file >> magic;
    if (magic == "P7") {  // PAM: words with a number each, in any order
        while (file >> word && word != "ENDHDR") {
            if (word == "WIDTH") file >> foundWidth;
            else if (word == "HEIGHT") file >> foundHeight;
            else if (word == "DEPTH") file >> foundChannels;
            else if (word == "MAXVAL") file >> highest;
            else std::getline(file, word);  // what the bands are called, and comments
        }
    } else {
        file >> foundWidth >> foundHeight >> highest;
    }
    file.get();  // the one byte between header and pixels
    bool const fits = file && magic == (channels == 1 ? "P5" : channels == 3 ? "P6" : "P7") && highest == 255;
    if (!fits || foundChannels != channels || foundWidth != width || foundHeight != height)
        throw std::runtime_error(path + " is no binary " + wanted + " of " +
                                 std::to_string(width) + " x " + std::to_string(height) + " pixels of 8 bits");
    std::vector<unsigned char> bytes(channels * height * width);
    if (!file.read(reinterpret_cast<char*>(bytes.data()), bytes.size())) throw std::runtime_error(path + " is cut off");
    std::vector<float> image(bytes.size());
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < height * width; ++i) image[c * height * width + i] = bytes[i * channels + c] / 255.0f;
    return image;
}

int run(char const* model, std::string const& photo) {
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "infer");
    Ort::Session session(environment, model, Ort::SessionOptions{});
    Ort::AllocatorWithDefaultOptions allocator;
    auto const inputName = session.GetInputNameAllocated(0, allocator);
    auto const outputName = session.GetOutputNameAllocated(0, allocator);
    std::vector<int64_t> shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    shape[0] = std::max<int64_t>(shape[0], 1);  // -1 where the graph leaves the batch open

    std::vector<float> const image = readImage(photo, shape[1], shape[2], shape[3]);
    std::vector<float> images;  // a model of fixed batch gets the image as often as it wants
    for (int64_t b = 0; b < shape[0]; ++b) images.insert(images.end(), image.begin(), image.end());

    auto const memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value const input =
        Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape.data(), shape.size());
    char const* const inputNames[] = {inputName.get()};
    char const* const outputNames[] = {outputName.get()};
    auto const outputs = session.Run(Ort::RunOptions{nullptr}, inputNames, &input, 1, outputNames, 1);

    std::vector<int64_t> const given = outputs[0].GetTensorTypeAndShapeInfo().GetShape();  // (B, K) or (B, K, H, W)
    int64_t const numClasses = given[1];
    int64_t const mapHeight = given.size() == 4 ? given[2] : 1, mapWidth = given.size() == 4 ? given[3] : 1;
    int64_t const pixels = mapHeight * mapWidth;
    float const* const logits = outputs[0].GetTensorData<float>();
    if (pixels > 1) {  // each pixel has a class: a PGM with their indices, and their shares
        std::vector<unsigned char> classes(pixels);
        std::vector<int64_t> counts(numClasses);
        for (int64_t p = 0; p < pixels; ++p) {
            int64_t best = 0;
            for (int64_t k = 1; k < numClasses; ++k)
                if (logits[k * pixels + p] > logits[best * pixels + p]) best = k;
            classes[p] = static_cast<unsigned char>(best);
            ++counts[best];
        }
        for (int64_t k = 0; k < numClasses; ++k) {
            double const share = 100.0 * counts[k] / pixels;
            if (counts[k]) std::printf("class %d, %.1f%% of the pixels\n", static_cast<int>(k), share);
        }
        std::ofstream("classes.pgm", std::ios::binary)
            << "P5\n" << mapWidth << " " << mapHeight << "\n255\n"
            << std::string(classes.begin(), classes.end());
        return 0;
    }
    float const* const best = std::max_element(logits, logits + numClasses);
    double sum = 0;
    for (int64_t k = 0; k < numClasses; ++k) sum += std::exp(logits[k] - *best);
    std::printf("class %d, probability %.3f\n", static_cast<int>(best - logits), 1 / sum);
    return 0;
}

int main(int argc, char** argv) try {
    if (argc != 3) throw std::runtime_error("usage: infer MODEL IMAGE");
    return run(argv[1], argv[2]);
} catch (std::exception const& error) {
    std::cerr << "infer: " << error.what() << "\n";
    return 1;
}

// One image to one class with a TensorRT engine: ./infer engines/student.fp16.plan photo.ppm
//
// The image is a binary PPM, PGM or, of four bands, PAM of the model's size (convert photo.jpg -resize 224x224!
// photo.ppm), so that nothing but TensorRT 8, 10 or 11 and the CUDA runtime is needed. Where each pixel has a class,
// their shares are printed and the classes written to classes.pgm. Copy what you need.
//
//     g++ -O2 -std=c++14 infer.cpp -o infer -I/usr/local/cuda/include -L/usr/local/cuda/lib64 -lnvinfer -lcudart
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, char const* message) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << message << "\n";
    }
};

void check(cudaError_t code) {
    if (code != cudaSuccess) throw std::runtime_error(cudaGetErrorString(code));
}

std::vector<char> readFile(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// (H, W, C) bytes to (C, H, W) float32 in [0, 1]; mean and standard deviation are inside the model.
std::vector<float> readImage(std::string const& path, int channels, int height, int width) {
    std::ifstream file(path, std::ios::binary);
    std::string const wanted = channels == 1 ? "PGM" : channels == 3 ? "PPM" : "PAM";
    std::string magic, word;
    int foundWidth = 0, foundHeight = 0, foundChannels = channels, highest = 0;
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
    std::vector<unsigned char> bytes(static_cast<std::size_t>(channels) * height * width);
    if (!file.read(reinterpret_cast<char*>(bytes.data()), bytes.size())) throw std::runtime_error(path + " is cut off");
    std::vector<float> image(bytes.size());
    for (int c = 0; c < channels; ++c)
        for (int i = 0; i < height * width; ++i) image[c * height * width + i] = bytes[i * channels + c] / 255.0f;
    return image;
}

int run(std::string const& plan, std::string const& photo) {
    Logger logger;
    std::vector<char> const content = readFile(plan);
    std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(content.data(), content.size()));
    if (!engine) throw std::runtime_error(plan + " was not built by this version of TensorRT on this GPU");
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());

    // Input 0 is the image (B, C, H, W), output 1 the logits (B, K); B is -1 where the graph leaves it open.
#if NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 5)
    char const* const imageName = engine->getIOTensorName(0);
    nvinfer1::Dims shape = engine->getTensorShape(imageName);
    nvinfer1::Dims const logitsShape = engine->getTensorShape(engine->getIOTensorName(1));
    shape.d[0] = shape.d[0] < 1 ? 1 : shape.d[0];
    context->setInputShape(imageName, shape);
#else
    nvinfer1::Dims shape = engine->getBindingDimensions(0);
    nvinfer1::Dims const logitsShape = engine->getBindingDimensions(1);
    shape.d[0] = shape.d[0] < 1 ? 1 : shape.d[0];
    context->setBindingDimensions(0, shape);
#endif
    int const batch = static_cast<int>(shape.d[0]), numClasses = static_cast<int>(logitsShape.d[1]);
    bool const dense = logitsShape.nbDims == 4;  // (B, K, H, W)
    int64_t const mapHeight = dense ? logitsShape.d[2] : 1, mapWidth = dense ? logitsShape.d[3] : 1;
    int64_t const pixels = mapHeight * mapWidth;

    std::vector<float> const image =
        readImage(photo, static_cast<int>(shape.d[1]), static_cast<int>(shape.d[2]), static_cast<int>(shape.d[3]));
    std::vector<float> images;  // a model of fixed batch gets the image as often as it wants
    for (int b = 0; b < batch; ++b) images.insert(images.end(), image.begin(), image.end());
    std::vector<float> logits(static_cast<std::size_t>(batch) * numClasses * pixels);

    void* buffers[2] = {nullptr, nullptr};
    check(cudaMalloc(&buffers[0], images.size() * sizeof(float)));
    check(cudaMalloc(&buffers[1], logits.size() * sizeof(float)));
    check(cudaMemcpy(buffers[0], images.data(), images.size() * sizeof(float), cudaMemcpyHostToDevice));
    if (!context->executeV2(buffers)) throw std::runtime_error("TensorRT failed; its messages are above");
    check(cudaMemcpy(logits.data(), buffers[1], logits.size() * sizeof(float), cudaMemcpyDeviceToHost));
    check(cudaFree(buffers[0]));
    check(cudaFree(buffers[1]));

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
    auto const best = std::max_element(logits.begin(), logits.begin() + numClasses);
    double sum = 0;
    for (int k = 0; k < numClasses; ++k) sum += std::exp(logits[k] - *best);
    std::printf("class %d, probability %.3f\n", static_cast<int>(best - logits.begin()), 1 / sum);
    return 0;
}

int main(int argc, char** argv) try {
    if (argc != 3) throw std::runtime_error("usage: infer ENGINE IMAGE");
    return run(argv[1], argv[2]);
} catch (std::exception const& error) {
    std::cerr << "infer: " << error.what() << "\n";
    return 1;
}

// Declarations that exporters/kit/infer_onnxruntime.cpp uses, for a syntax check; not the vendor's header.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING = 2 };
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };

namespace Ort {
struct Env {
    Env(OrtLoggingLevel level, char const* name);
};
struct SessionOptions {};
struct RunOptions {
    explicit RunOptions(std::nullptr_t);
};
struct AllocatorWithDefaultOptions {
    AllocatorWithDefaultOptions();
};
struct TensorTypeAndShapeInfo {
    std::vector<int64_t> GetShape() const;
};
struct TypeInfo {
    TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
};
struct MemoryInfo {
    static MemoryInfo CreateCpu(OrtAllocatorType allocator, OrtMemType memory);
};
struct Value {
    template <typename T>
    static Value CreateTensor(MemoryInfo const& memory, T* data, std::size_t count, int64_t const* shape,
                              std::size_t dimensions);
    TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
    template <typename T>
    T const* GetTensorData() const;
};
using AllocatedStringPtr = std::unique_ptr<char>;
struct Session {
    Session(Env const& environment, char const* path, SessionOptions const& options);
    AllocatedStringPtr GetInputNameAllocated(std::size_t index, AllocatorWithDefaultOptions& allocator) const;
    AllocatedStringPtr GetOutputNameAllocated(std::size_t index, AllocatorWithDefaultOptions& allocator) const;
    TypeInfo GetInputTypeInfo(std::size_t index) const;
    std::vector<Value> Run(RunOptions const& options, char const* const* inputNames, Value const* inputs,
                           std::size_t inputCount, char const* const* outputNames, std::size_t outputCount);
};
}  // namespace Ort

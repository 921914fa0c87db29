// Declarations that exporters/kit/infer_tensorrt.cpp uses, for a syntax check; not the vendor's header.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nvinfer1 {
struct Dims {
    int32_t nbDims;
    int64_t d[8];
};
class ILogger {
   public:
    enum class Severity : int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
    virtual void log(Severity severity, char const* message) noexcept = 0;
    virtual ~ILogger() = default;
};
class IExecutionContext {
   public:
    virtual ~IExecutionContext() = default;
    bool executeV2(void* const* bindings) noexcept;
#if NV_TENSORRT_MAJOR > 8
    bool setInputShape(char const* name, Dims const& shape) noexcept;
#else
    bool setBindingDimensions(int32_t index, Dims shape) noexcept;
#endif
};
class ICudaEngine {
   public:
    virtual ~ICudaEngine() = default;
    IExecutionContext* createExecutionContext() noexcept;
#if NV_TENSORRT_MAJOR > 8
    char const* getIOTensorName(int32_t index) const noexcept;
    Dims getTensorShape(char const* name) const noexcept;
#else
    Dims getBindingDimensions(int32_t index) const noexcept;
#endif
};
class IRuntime {
   public:
    virtual ~IRuntime() = default;
    ICudaEngine* deserializeCudaEngine(void const* content, std::size_t size) noexcept;
};
IRuntime* createInferRuntime(ILogger& logger) noexcept;
}  // namespace nvinfer1

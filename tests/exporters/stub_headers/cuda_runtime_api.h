// Declarations that exporters/kit/infer_tensorrt.cpp uses, for a syntax check; not the vendor's header.
#pragma once
#include <cstddef>

enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
char const* cudaGetErrorString(cudaError_t code);
cudaError_t cudaMalloc(void** pointer, std::size_t size);
cudaError_t cudaMemcpy(void* to, void const* from, std::size_t size, cudaMemcpyKind kind);
cudaError_t cudaFree(void* pointer);

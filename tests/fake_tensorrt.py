"""A stand-in for the package `tensorrt` that notes every call and computes `logits = image.mean() + 1` on the CPU.

It proves the order of our calls and what they carry. It proves nothing about TensorRT.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from exporters import tensorrt_backend
from exporters.tensorrt_backend import Gpu

ENGINE = b"an engine of the stand-in"
GPU = Gpu("NVIDIA L4", "8.9", "13.0")


class DataType(IntEnum):
    FLOAT = 0

    def __str__(self) -> str:
        return f"DataType.{self.name}"


class FakeTensorRT(ModuleType):
    """In versions 10 weakly typed networks exist too. `calls` is what was called, in order."""

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self.__version__ = version
        self.calls: list[tuple[Any, ...]] = []
        self.parser_errors: list[SimpleNamespace] = []
        self.build_fails = self.open_fails = self.execute_fails = False
        self.max_batch = 4
        severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)
        self.ILogger = type("ILogger", (), {"Severity": severity})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.BuilderFlag = SimpleNamespace(TF32=7, **({"FP16": 0} if version.startswith("10.") else {}))
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.TensorIOMode = SimpleNamespace(INPUT=1, OUTPUT=2)
        self.Builder = self._member(Builder)
        self.OnnxParser = self._member(Parser)
        self.Runtime = self._member(Runtime)

    def _member(self, kind: Any) -> Any:
        return lambda *arguments: kind(self, *arguments)


class Noting:
    def __init__(self, trt: FakeTensorRT, *_: Any) -> None:
        self.trt = trt

    def __getattr__(self, name: str) -> Any:
        """Any other method: note the call."""
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.trt.calls.append((name, *args, *kwargs.values()))


class Builder(Noting):
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        super().__init__(trt)
        self.logger = logger

    def create_network(self, flags: int) -> Any:
        self.trt.calls.append(("create_network", flags))
        return SimpleNamespace(num_layers=7)

    def create_builder_config(self) -> Any:
        return Config(self.trt)

    def create_optimization_profile(self) -> Any:
        return Noting(self.trt)

    def build_serialized_network(self, *_: Any) -> bytes | None:
        self.trt.calls.append(("build",))
        if self.trt.build_fails:
            self.logger.log(1, "Could not find any\nimplementation for node conv.")
            self.logger.log(2, "a warning")
            return None
        return ENGINE


class Config(Noting):
    def create_timing_cache(self, known: bytes) -> Any:
        self.trt.calls.append(("create_timing_cache", known))
        return None if known == b"damaged" else known

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.trt.calls.append(("set_timing_cache", cache, ignore_mismatch))
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timings")


class Parser:
    def __init__(self, trt: FakeTensorRT, *_: Any) -> None:
        self.trt = trt
        self.num_errors = len(trt.parser_errors)

    def parse(self, content: bytes) -> bool:
        self.trt.calls.append(("parse", onnx.load_from_string(content).graph.node[-1].op_type))
        return not self.trt.parser_errors

    def get_error(self, index: int) -> Any:
        return self.trt.parser_errors[index]


class Runtime:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self.trt, self.logger = trt, logger

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        assert content == ENGINE
        if self.trt.open_fails:
            self.logger.log(0, "out of memory.")
            return None
        return Engine(self.trt)


class Engine:
    num_io_tensors = 2

    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt

    def create_execution_context(self) -> Any:
        return Context(self.trt)

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> int:
        return 1 if name == "image" else 2

    def get_tensor_dtype(self, _name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3, 8, 8) if name == "image" else (-1, 5)


class Context:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.trt.calls.append(("set_input_shape", name, shape))
        self.shape = shape
        return shape[0] <= self.trt.max_batch

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape if name == "image" else (self.shape[0], 5)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.trt.calls.append(("set_tensor_address", name))
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        self.trt.calls.append(("execute_async_v3", stream))
        if self.trt.execute_fails:
            return False
        batch = self.shape[0]
        image = self._floats("image", batch * 192).reshape(batch, -1)
        self._floats("logits", batch * 5).reshape(batch, 5)[:] = image.mean(axis=1, keepdims=True) + 1
        return True

    def _floats(self, name: str, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name]))


def install(monkeypatch: pytest.MonkeyPatch, version: str = "10.13.3.9") -> FakeTensorRT:
    """Let `import tensorrt` find a stand-in, on a machine with an L4 whose memory is the CPU's."""
    trt = FakeTensorRT(version)
    monkeypatch.setitem(sys.modules, trt.__name__, trt)
    monkeypatch.setattr(tensorrt_backend, "usable_gpu", lambda: GPU)
    zeros = torch.zeros
    stream = SimpleNamespace(cuda_stream=77, synchronize=lambda: trt.calls.append(("synchronize",)))
    monkeypatch.setattr(torch, "zeros", lambda size, dtype, **_on_gpu: zeros(size, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    return trt

"""One way to run a model, whatever computes it: `runner.infer({"image": images})["logits"]`.

Importing this file needs numpy alone, so that a board without torch can run an ONNX file. Runners hold their
model from construction until `close`, or the end of a `with` block.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from numpy.typing import NDArray

from exporters.causes import one_line
from exporters.errors import ExportError

if TYPE_CHECKING:
    from torch import nn

INPUT_NAME = "image"
OUTPUT_NAME = "logits"


class Runner(Protocol):
    """Anything that maps named arrays to named arrays; `str(runner)` says what computes, for messages."""

    def infer(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True)
class TensorSpec:
    """An input that a model asks for.

    Attributes:
        name: the key of the feed.
        dtype: numpy's name, such as float32.
        shape: a number where the size is fixed, else the name of the size (or None).
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(str(size) for size in self.shape)})"

    def accepts(self, array: NDArray[Any]) -> bool:
        """Whether dtype, rank and every fixed size are right."""
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(
                size == wanted or not isinstance(wanted, int)
                for size, wanted in zip(array.shape, self.shape, strict=True)
            )
        )


class OnnxRunner:
    """An ONNX file in ONNX Runtime.

    Args:
        path: the .onnx file.
        provider: what must compute. ONNX Runtime falls back to the CPU in silence; here that is an error.
        threads: threads within one operator; None leaves the choice to ONNX Runtime.
        optimise: False runs the graph as it is written. On CPUs ONNX Runtime 1.24 and 1.31 compute graphs
            that mix fp16 with int8 wrongly at every other level.

    Attributes:
        inputs: what the file asks for, in its order.

    Raises:
        ExportError: ONNX Runtime is missing, cannot read the file, or does not run it on `provider`.
    """

    def __init__(
        self,
        path: Path,
        provider: str = "CPUExecutionProvider",
        threads: int | None = None,
        optimise: bool = True,
    ) -> None:
        runtime = _import_onnxruntime()
        self.path, self.provider = path, provider
        available = runtime.get_available_providers()
        if provider not in available:
            raise ExportError(
                f"ONNX Runtime {runtime.__version__} has no execution provider {provider!r}.",
                f"This build has {', '.join(available)}.",
                "Choose one of these, or install the build of ONNX Runtime that has it.",
            )
        if provider == "CUDAExecutionProvider":
            runtime.preload_dlls()  # CUDA and cuDNN as torch's wheels bring them
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors; its warnings are about graph clean-up
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimise:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = runtime.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
        except Exception as error:  # its exceptions share no base class
            raise ExportError(
                f"ONNX Runtime {runtime.__version__} could not load {path} on {provider}: {one_line(error)}.",
                "A valid ONNX file, and a provider whose libraries are installed, were expected.",
                "Export the file again if it is damaged, or choose the provider CPUExecutionProvider.",
            ) from error
        obtained = session.get_providers()[0]
        if obtained != provider:
            raise ExportError(
                f"ONNX Runtime fell back to {obtained} for {path.name} although {provider} was asked for.",
                f"{provider} needs its device, its driver and its libraries.",
                "Read the reason that ONNX Runtime printed and install what it names, or ask for "
                f"{obtained} and report its numbers under that name.",
            )
        self._session: Any = session
        self.inputs = tuple(
            TensorSpec(item.name, _numpy_name(item.type), tuple(item.shape)) for item in session.get_inputs()
        )
        self._output_names = [item.name for item in session.get_outputs()]

    def infer(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once.

        Raises:
            ExportError: the feed is not what the file asks for, or ONNX Runtime failed.
        """
        if set(feed) != {spec.name for spec in self.inputs}:
            raise self._refuse("inputs " + (", ".join(repr(name) for name in feed) or "none"))
        for spec in self.inputs:
            array = feed[spec.name]
            if not spec.accepts(array):
                raise self._refuse(str(TensorSpec(spec.name, str(array.dtype), array.shape)))
        try:
            outputs = self._session.run(self._output_names, dict(feed))
        except Exception as error:
            sizes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
            raise ExportError(
                f"ONNX Runtime failed in {self.path.name} on {sizes}: {one_line(error)}.",
                "A graph that runs at every size that its inputs allow was expected.",
                "Export the model again; the node named above needs another form.",
            ) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def _refuse(self, received: str) -> ExportError:
        return ExportError(
            f"{self.path.name} was given {received}.",
            f"It takes {'; '.join(str(spec) for spec in self.inputs)}.",
            "Pass arrays with these names, types and sizes.",
        )

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"{self.path.name} on {self.provider}"


class TorchRunner:
    """A torch classifier from images (B, C, H, W) to logits (B, K), in evaluation mode and without gradients.

    `close` puts the model back on its device and every submodule back into its mode.
    """

    def __init__(self, model: nn.Module, device: str = "cpu") -> None:
        import torch

        from exporters.modules import device_of, evaluation_mode

        self.model, self.device = model, torch.device(device)
        self._restore = ExitStack()
        self._restore.callback(model.to, device_of(model))
        model.to(self.device)
        self._restore.enter_context(evaluation_mode(model))

    def infer(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the module once on `image`.

        Raises:
            ExportError: the feed holds anything else.
        """
        import torch

        if set(feed) != {INPUT_NAME}:
            raise ExportError(
                f"{self} was given inputs {', '.join(repr(name) for name in feed)}.",
                f"It takes one input, {INPUT_NAME!r}.",
                f"Pass the images under the name {INPUT_NAME!r}.",
            )
        with torch.inference_mode():
            logits = self.model(torch.from_numpy(feed[INPUT_NAME]).to(self.device))
        return {OUTPUT_NAME: logits.cpu().numpy()}

    def close(self) -> None:
        self._restore.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"{type(self.model).__name__} in torch on {self.device}"


def onnxruntime_conflict() -> str | None:
    """What is wrong and what to do where onnxruntime and onnxruntime-gpu are both installed, else None."""
    versions = []
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            return None
    return (
        f"{' and '.join(versions)} are both installed. "
        "They share one folder, so the one installed last is used and uninstalling either breaks the other. "
        "Run `pip uninstall -y onnxruntime onnxruntime-gpu`, then install one of the two."
    )


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime

        # A folder that an uninstall left behind still imports, as an empty package.
        _ = onnxruntime.InferenceSession
    except (ImportError, AttributeError) as error:
        raise ExportError(
            f"ONNX Runtime cannot be imported: {one_line(error)}.",
            "Exactly one of the packages onnxruntime and onnxruntime-gpu was expected.",
            onnxruntime_conflict() or "Run `pip install --force-reinstall onnxruntime`.",
        ) from error
    return onnxruntime


def _numpy_name(onnx_type: str) -> str:
    """`tensor(float)` is numpy's float32; apart from the two floats that C names, the words are the same."""
    word = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(word, word)

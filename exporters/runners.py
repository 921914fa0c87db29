"""One way to run a model, whatever computes it: `runner.infer({"image": images})["logits"]`.

Importing this file needs numpy alone, so that a board without torch can run an ONNX file. Runners hold their
model from construction until `close`, or the end of a `with` block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Timer
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
        content: the file's bytes, where they are in memory; `path` then only names it, for messages.
        within_s: seconds after which a call is stopped, since a file of unknown origin may loop without end, and while
            it computes no signal is heard; None: never.

    Attributes:
        inputs: what the file asks for, in its order.
        max_batch: None: the inputs say it.

    Raises:
        ExportError: ONNX Runtime is missing, cannot read the file, or does not run it on `provider`.
    """

    def __init__(
        self,
        path: Path,
        provider: str = "CPUExecutionProvider",
        threads: int | None = None,
        optimise: bool = True,
        content: bytes | None = None,
        within_s: float | None = None,
    ) -> None:
        runtime = _import_onnxruntime()
        self.path, self.provider, self.within_s = path, provider, within_s
        self.max_batch: int | None = None
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
        options.log_severity_level = 4  # warnings are about graph clean-up, and errors are raised as well
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimise:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            model = str(path) if content is None else content
            session = runtime.InferenceSession(model, options, providers=[provider], enable_fallback=0)
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
            ExportError: the feed is not what the file asks for, ONNX Runtime failed, or it took too long.
        """
        _check_feed(self.path, self.inputs, feed)
        options = None if self.within_s is None else _import_onnxruntime().RunOptions()
        try:
            with _stopped_after(self.within_s, options):
                outputs = self._session.run(self._output_names, dict(feed), options)
        except Exception as error:
            sizes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
            if options is not None and options.terminate:
                raise ExportError(
                    f"{self.path.name} was not through with {sizes} after {self.within_s:g} s.",
                    "An answer was expected by then.",
                    "Look for a Loop in it that does not end, and export it without; or take a faster machine.",
                ) from error
            raise ExportError(
                f"ONNX Runtime failed in {self.path.name} on {sizes}: {one_line(error)}.",
                "A graph that runs at every size that its inputs allow was expected.",
                "Export the model again; the node named above needs another form.",
            ) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"{self.path.name} on {self.provider}"


@contextmanager
def _stopped_after(seconds: float | None, options: Any) -> Iterator[None]:
    """A run of ONNX Runtime with these options ends in an error where it takes longer."""
    if seconds is None:
        yield
        return
    options.log_severity_level = 4
    timer = Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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


class TensorRTRunner:
    """An engine in the TensorRT that built it, on this machine's GPU.

    Args:
        path: the engine; its card lies beside it.
        cuda_graph: replay the launches as one CUDA graph, captured at the first call of every batch size. It saves
            the CPU's time, which small networks spend most of theirs on.

    Attributes:
        card: what the engine is.
        inputs: what it asks for.
        max_batch: the most images that a call may hold.

    Raises:
        ExportError: the engine is not whole or not for this machine (`engine_card.check_engine`), or does not open.
    """

    def __init__(self, path: Path, cuda_graph: bool = False) -> None:
        from exporters.engine_card import check_engine
        from exporters.tensorrt_backend import load_backend

        self.path, self.cuda_graph = path, cuda_graph
        self.card = check_engine(path)  # before a Runtime exists: without a GPU creating one may end the process
        self.max_batch: int | None = self.card.batch.max
        import torch

        backend = load_backend(self.card.backend)
        self._title, self._logger = str(backend), backend.logger()
        self._runtime = backend.module.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        self._context: Any = self._engine and self._engine.create_execution_context()
        if not self._context:
            raise self._failed("could not be opened")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        specs = [self._spec(name) for name in names]
        kinds = [self._engine.get_tensor_mode(name) == backend.module.TensorIOMode.INPUT for name in names]
        self.inputs = tuple(spec for spec, is_input in zip(specs, kinds, strict=True) if is_input)
        self._outputs = tuple(spec for spec, is_input in zip(specs, kinds, strict=True) if not is_input)
        self._stream = torch.cuda.Stream()
        # By the input shapes: the buffers on the GPU, and the graph that was captured on them.
        self._prepared: dict[tuple[tuple[int, ...], ...], tuple[dict[str, Any], Any]] = {}
        self._bound: tuple[tuple[int, ...], ...] | None = None

    def infer(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Copy the arrays to the GPU, run the engine once, and copy the results back.

        Raises:
            ExportError: the feed is not what the engine asks for, or TensorRT failed.
        """
        import torch

        _check_feed(self.path, self.inputs, feed)
        shapes = tuple(feed[spec.name].shape for spec in self.inputs)
        with torch.cuda.stream(self._stream):
            if shapes != self._bound:
                self._bind(shapes)
            buffers, graph = self._prepared[shapes]
            for spec in self.inputs:
                buffers[spec.name].copy_(torch.from_numpy(feed[spec.name]))
            if graph is None:
                self._execute()
            else:
                graph.replay()
            outputs = {spec.name: buffers[spec.name].cpu().numpy() for spec in self._outputs}
        self._stream.synchronize()
        return outputs

    def _bind(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Point the engine at buffers for these input shapes, made at their first use."""
        self._bound = None  # until all of it has worked
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if not self._context.set_input_shape(spec.name, shape):
                raise ExportError(
                    f"{self.path.name} was given {spec.name} {shape}.",
                    f"It was built for a batch of {self.card.batch}.",
                    "Pass a batch of that size, or build the engine for another one.",
                )
        buffers, _ = self._prepared.get(shapes) or (self._allocate(), None)
        for name, buffer in buffers.items():
            self._context.set_tensor_address(name, buffer.data_ptr())
        if shapes not in self._prepared:
            self._prepared[shapes] = buffers, self._capture() if self.cuda_graph else None
        self._bound = shapes

    def _allocate(self) -> dict[str, Any]:
        """Zeros: the run before a capture reads them, and what lay in memory may be anything, NaN as well."""
        import torch

        return {
            spec.name: torch.zeros(
                tuple(self._context.get_tensor_shape(spec.name)), dtype=getattr(torch, spec.dtype), device="cuda"
            )
            for spec in (*self.inputs, *self._outputs)
        }

    def _capture(self) -> Any:
        """A CUDA graph of one execution. The first runs before it: what TensorRT prepares may not be captured."""
        import torch

        self._execute()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._execute()
        return graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise self._failed("failed while it ran")

    def _spec(self, name: str) -> TensorSpec:
        dtype = str(self._engine.get_tensor_dtype(name)).rpartition(".")[2]
        batch = self.card.batch.opt if self.card.batch.is_static else "batch"
        shape = tuple(batch if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name, {"FLOAT": "float32", "HALF": "float16"}.get(dtype, dtype.lower()), shape)

    def _failed(self, what: str) -> ExportError:
        return ExportError(
            f"The engine {self.path.name} {what}: {'; '.join(self._logger.errors[:3]) or 'no reason given'}.",
            f"{self._title} and the GPU that it was built for are here, so it was expected to run.",
            f"Free memory on the GPU, or build it again: {self.card.rebuild}.",
        )

    def close(self) -> None:
        """Release the GPU: the buffers, then the context, the engine and the runtime that own each other."""
        self._prepared.clear()
        self._context = self._engine = self._runtime = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"{self.path.name} in {self._title}"


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


def _check_feed(path: Path, inputs: tuple[TensorSpec, ...], feed: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a feed that is not exactly what a file asks for."""
    received = None
    if set(feed) != {spec.name for spec in inputs}:
        received = "inputs " + (", ".join(repr(name) for name in feed) or "none")
    else:
        for spec in inputs:
            if not spec.accepts(array := feed[spec.name]):
                received = str(TensorSpec(spec.name, str(array.dtype), array.shape))
    if received is not None:
        raise ExportError(
            f"{path.name} was given {received}.",
            f"It takes {'; '.join(str(spec) for spec in inputs)}.",
            "Pass arrays with these names, types and sizes.",
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

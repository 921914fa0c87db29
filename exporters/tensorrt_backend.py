"""TensorRT as a Python package: `tensorrt` 10 and 11, or `tensorrt_rtx`. What each can do is found out here, once.

    tensorrt 10   builds on a GPU, for that GPU; strongly typed if the network is created so
    tensorrt 11   the same; every network is strongly typed
    tensorrt_rtx  the API of 11; builds for a named compute capability, without a GPU too, and finishes the engine on
                  the GPU. Another product: its engines and timings are not TensorRT's.

TensorRT 8 is not here: it takes other graphs and its calls have other names; boards with it use trtexec (the kit).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from exporters.causes import one_line
from exporters.errors import ExportError

BackendName = Literal["tensorrt", "tensorrt_rtx"]

OLDEST = {"tensorrt": 10, "tensorrt_rtx": 1}
TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}


class TensorRTMissing(ExportError):
    """The package is not installed, does not load, or is too old."""


class GpuMissing(ExportError):
    """Something that only a GPU can do was asked for, and there is none that works."""


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU.

    Attributes:
        name: such as 'NVIDIA L4'.
        compute_capability: such as '8.9'.
        cuda: the CUDA that PyTorch was built for, which is what runs here.
    """

    name: str
    compute_capability: str
    cuda: str


@dataclass(frozen=True)
class Backend:
    """An imported TensorRT.

    Attributes:
        name: of the package.
        module: the package itself.
        version: its version, such as '11.4.0.106'.
    """

    name: BackendName
    module: Any
    version: str

    def __str__(self) -> str:
        return f"{TITLES[self.name]} {self.version}"

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The compute capabilities that it builds for without having them; none where it needs the GPU itself."""
        members = getattr(self.module, "ComputeCapability", None)
        found = (re.fullmatch(r"SM(\d+)(\d)", name) for name in dir(members))
        return tuple(f"{match[1]}.{match[2]}" for match in found if match)

    @cached_property
    def network_flags(self) -> int:
        """What create_network needs for a strongly typed network: nothing where there is no other kind."""
        weakly_typed_exist = hasattr(self.module.BuilderFlag, "FP16")
        return 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if weakly_typed_exist else 0

    @cached_property
    def has_timing_cache(self) -> bool:
        """Whether a timing cache saves time. TensorRT-RTX measures nothing when it builds; its calls do nothing."""
        return not self.targets

    def set_target(self, config: Any, compute_capability: str) -> None:
        """Tell a builder config to build for one of `targets`."""
        config.num_compute_capabilities = 1
        member = getattr(self.module.ComputeCapability, "SM" + compute_capability.replace(".", ""))
        config.set_compute_capability(member, 0)

    def logger(self) -> Any:
        """A logger that prints nothing; its `errors` are the lines that TensorRT called errors.

        It must live as long as what was made with it.
        """
        module = self.module
        worst = (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR)

        class Logger(module.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.errors: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity in worst:
                    self.errors.append(" ".join(message.split()).rstrip("."))

        return Logger()


def load_backend(name: BackendName) -> Backend:
    """Import a TensorRT.

    Raises:
        TensorRTMissing: it is not installed, its libraries do not load, or it is too old.
    """
    install = f"Run `pip install 'compress-edge[{EXTRAS[name]}]'`; everything but engines works without it."
    needs = f"The Python package {name}, {OLDEST[name]} or later, with its libraries was expected."
    if find_spec(name) is None:
        raise TensorRTMissing(f"{TITLES[name]} is not installed.", needs, install)
    try:
        module = import_module(name)
        version = str(module.__version__)
        _ = module.Builder, module.OnnxParser, module.Runtime
    except (ImportError, OSError, AttributeError) as error:
        # The wheels on PyPI fetch their libraries from NVIDIA's own index while they are installed.
        raise TensorRTMissing(
            f"The package {name} is installed but does not load: {one_line(error)}.",
            needs,
            f"{install} For tensorrt the machine must reach pypi.nvidia.com.",
        ) from error
    if int(version.partition(".")[0]) < OLDEST[name]:
        raise TensorRTMissing(f"{TITLES[name]} {version} is installed.", needs, install)
    return Backend(name, module, version)


def usable_gpu() -> Gpu | None:
    """The first GPU that PyTorch can use, or None."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old driver is a warning to torch, and no GPU to us
        if not torch.cuda.is_available():
            return None
        major, minor = torch.cuda.get_device_capability(0)
        return Gpu(torch.cuda.get_device_name(0), f"{major}.{minor}", str(torch.version.cuda))


def require_gpu(purpose: str) -> Gpu:
    """The first GPU.

    Raises:
        GpuMissing: there is none; `purpose` says what it was for, such as 'Building an engine'.
    """
    gpu = usable_gpu()
    if gpu is None:
        raise GpuMissing(
            f"{purpose} needs an NVIDIA GPU, and PyTorch finds none that works.",
            "A GPU, its driver, and a PyTorch that is built for CUDA were expected.",
            "Run it on the machine with the target's GPU; for a Jetson use the device kit.",
        )
    return gpu

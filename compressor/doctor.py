"""What this machine can do for a run: what works, what is missing, what to install.

Every answer comes from trying. ONNX Runtime lists a CUDA provider on machines without a GPU and falls back to
the CPU in silence; a torchvision of another release than torch fails only when it is imported. ONNX Runtime
and TensorRT are tried in a child process, because they print past Python and may abort the process.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from compressor.errors import EnvironmentFault

State: TypeAlias = Literal["ok", "missing", "warning"]
Finding: TypeAlias = tuple[State, str, str]  # the state, found and advice of a Check

MIN_MEMORY_GIB = 4.0
MIN_DISK_GIB = 5.0
CHILD_TIMEOUT_S = 120
CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        state: "missing" is something that some command uses; "warning" is for knowing before a long run.
        found: what is there, with versions and sizes.
        advice: what to do about it; empty where nothing needs doing.
    """

    name: str
    state: State
    found: str
    advice: str

    def to_dict(self) -> dict[str, str]:
        """The finding as plain data."""
        return asdict(self)


def diagnose(folder: Path | None = None) -> list[Check]:
    """Run every check; none of them raises.

    Args:
        folder: where runs will be written, the working directory by default; it need not exist.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "Python": _python,
        "PyTorch": _torch,
        "torchvision": _torchvision,
        "GPU": _gpu,
        "CPU": _cpu,
        "memory": _memory,
        "disk": partial(_disk, (folder or Path()).absolute()),
        "ONNX Runtime": _onnxruntime,
        "ONNX Runtime on CUDA": partial(_provider, "CUDAExecutionProvider", "a GPU, its driver and cuDNN"),
        "ONNX Runtime on TensorRT": partial(_provider, "TensorrtExecutionProvider", "a GPU and TensorRT 10"),
        "TensorRT": partial(_native_package, "tensorrt", "tensorrt", "build engines on this machine"),
        "TensorRT-RTX": partial(_native_package, "tensorrt_rtx", "rtx", "check graphs without a GPU"),
        "ssh": _ssh,
        "scikit-learn": _sklearn,
    }
    return [Check(name, *_guarded(check)) for name, check in checks.items()]


def training_device(wanted: str) -> Literal["cpu", "cuda"]:
    """Where to train, of "auto", "cpu" and "cuda".

    Raises:
        EnvironmentFault: a GPU was demanded and torch finds none.
    """
    import torch

    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise EnvironmentFault(
            "--device cuda was asked for, but torch finds no CUDA GPU.",
            "A CUDA GPU with a driver that fits this torch was expected.",
            "Run `compress doctor` to see what is missing, or use --device cpu.",
        )
    return "cpu"


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken installation can raise anything, and is what a doctor is called for
        return "warning", f"cannot be examined: {_brief(error)}", "Read this message first."


def _brief(error: object) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _python() -> Finding:
    return "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return "missing", _brief(error), "Run `pip install torch torchvision`."
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU"
    return "ok", f"{torch.__version__}, {build}", ""


def _torchvision() -> Finding:
    try:
        import torch
        import torchvision

        # The operator that is not there when the two come from different releases.
        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        advice = "Install a pair of one release: `pip install --force-reinstall torch torchvision`."
        return "missing", _brief(error), advice
    return "ok", f"{torchvision.__version__}, its operators load", ""


def _gpu() -> Finding:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old driver is a warning to torch and a finding here
        if not torch.cuda.is_available():
            built_for_cpu = torch.version.cuda is None
            found = "PyTorch is built for CPU" if built_for_cpu else "no usable NVIDIA driver or device"
            advice = "Training runs on the CPU; a GPU takes NVIDIA's driver and a PyTorch that is built for CUDA."
            return "missing", found, advice
        major, minor = torch.cuda.get_device_capability(0)
        gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        found = f"{torch.cuda.get_device_name(0)}, {gib:.0f} GiB, compute capability {major}.{minor}"
        try:
            ones = torch.ones(8, 8, device="cuda")
            (ones @ ones).sum().item()
        except RuntimeError as error:
            advice = "Install a PyTorch that is built for this GPU and driver, or run with --device cpu."
            return "warning", f"{found}, does not compute: {_brief(error)}", advice
    return "ok", f"{found}, {torch.cuda.device_count()} in all", ""


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{cores} {'core' if cores == 1 else 'cores'}"
    if not CPU_INFO.is_file():
        return "warning", f"{found}, bf16 unknown", "Keep --precision auto or fp32."
    # x86 lists its instructions under "flags", Arm under "Features".
    words = {word for line in CPU_INFO.read_text().splitlines() for word in line.partition(":")[2].split()}
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "bf16") if unit in words]
    if not units:
        return "warning", f"{found}, no bf16 units", "Train with --precision fp32; bf16 is slow here."
    return "ok", f"{found}, fast bf16 ({', '.join(units)})", ""


def _memory() -> Finding:
    lines = MEMORY_INFO.read_text().splitlines()
    gib = {line.partition(":")[0]: int(line.split()[1]) / 2**20 for line in lines}
    total, available = gib["MemTotal"], gib["MemAvailable"]
    limit = MEMORY_LIMIT.read_text().strip() if MEMORY_LIMIT.is_file() else "max"
    if limit != "max":  # a container's share, which its meminfo does not show
        total = min(total, int(limit) / 2**30)
        available = min(available, total)
    found = f"{available:.1f} of {total:.1f} GiB available"
    if available < MIN_MEMORY_GIB:
        return "warning", found, f"Free some; {MIN_MEMORY_GIB:.0f} GiB are safe."
    return "ok", found, ""


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free / 2**30
    found = f"{free:.1f} GiB free at {existing}"
    if not os.access(existing, os.W_OK):
        return "missing", f"{existing} is not writable", "Name a writable folder with --out."
    if free < MIN_DISK_GIB:
        advice = f"Free some, or name another disk with --out; {MIN_DISK_GIB:.0f} GiB are safe."
        return "warning", found, advice
    return "ok", found, ""


def _onnxruntime() -> Finding:
    from exporters.runners import onnxruntime_conflict

    conflict = onnxruntime_conflict()
    if conflict is not None:
        found, _, advice = conflict.partition(". ")
        return "warning", found, advice
    worked, said = _child("import onnxruntime as o; print(o.__version__, *o.get_available_providers())")
    if not worked:
        advice = "Run `pip install onnxruntime-gpu` on Linux x86-64, `pip install onnxruntime` elsewhere."
        return "missing", said, advice
    release, *providers = said.split()
    # The list is what was compiled in; whether it starts is asked below.
    return "ok", f"{release}, lists {', '.join(providers)}", ""


_PROVIDER_PROBE = """
import contextlib, os, sys
import numpy
import onnxruntime
from onnx import TensorProto, helper
answer, sys.stdout = sys.stdout, open(os.devnull, "w")
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
with contextlib.suppress(Exception):
    onnxruntime.preload_dlls()
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[sys.argv[1]])
session.run(None, {"x": numpy.zeros(1, numpy.float32)})
print(session.get_providers()[0], file=answer)
"""


def _provider(provider: str, needs: str) -> Finding:
    """Whether a session that asks for the provider gets it; ONNX Runtime would fall back without raising."""
    worked, said = _child(_PROVIDER_PROBE, provider)
    if worked and said == provider:
        return "ok", "a session runs", ""
    found = f"asked for {provider}, got {said}" if worked else f"no session: {said}"
    return "missing", found, f"It takes onnxruntime-gpu, {needs}; runs do without it, on the CPU."


def _native_package(module: str, extra: str, purpose: str) -> Finding:
    advice = f"Run `pip install 'compress-edge[{extra}]'` to {purpose}; runs do without it."
    if find_spec(module) is None:
        return "missing", "not installed", advice
    worked, said = _child(f"import {module}; print({module}.__version__)")
    return ("ok", said, "") if worked else ("missing", f"does not load: {said}", advice)


def _ssh() -> Finding:
    missing = [name for name in ("ssh", "scp") if shutil.which(name) is None]
    if missing:
        advice = "Install an OpenSSH client for `--board`; a kit can also be copied by hand."
        return "missing", f"no {' and no '.join(missing)}", advice
    return "ok", str(shutil.which("ssh")), ""


def _sklearn() -> Finding:
    try:
        return "ok", version("scikit-learn"), ""
    except PackageNotFoundError:
        advice = "Run `pip install 'compress-edge[demo]'` for `compress demo`; runs do without it."
        return "missing", "not installed", advice


def _child(code: str, *arguments: str) -> tuple[bool, str]:
    """Run code in a Python of its own: (True, what it printed) or (False, why it failed, in one line)."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False, f"no answer in {CHILD_TIMEOUT_S} s"
    if done.returncode < 0:
        return False, f"ended by signal {-done.returncode}"
    worked = done.returncode == 0
    lines = (done.stdout if worked else done.stderr).strip().splitlines()
    return worked, lines[-1][:200] if lines else f"exit code {done.returncode}"

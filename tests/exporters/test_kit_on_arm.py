"""The ONNX Runtime kit in an aarch64 user-space under qemu: that it works there, never how fast.

COMPRESS_ARM_ROOT names a folder with an executable `python` that runs an aarch64 interpreter with numpy and
onnxruntime, such as this one, with Debian's arm64 packages in root/ and the aarch64 wheels in site/:

    #!/bin/sh
    PYTHONPATH=DIR/site exec qemu-aarch64-static -cpu cortex-a72 -L DIR/root DIR/root/usr/bin/python3.11 "$@"

ONNX Runtime's aarch64 wheel reads /proc/cpuinfo and /sys/devices/system/cpu: root/ needs those of an Arm core.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
from fake_board import run_kit

from exporters.device_kit import KitModel, write_kit
from exporters.golden import golden_patterns
from exporters.onnx_files import OnnxFile
from exporters.routes import route_for
from profiles.board_result import read_board_result
from profiles.catalogue import load_target

ARM_ROOT = os.environ.get("COMPRESS_ARM_ROOT", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ARM_ROOT, reason="COMPRESS_ARM_ROOT names no aarch64 user-space"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86 machine, where aarch64 is emulated"),
]


@pytest.mark.parametrize("everything_says_aarch64", [False, True])
def test_the_kit_works_on_arm(exported: OnnxFile, tmp_path: Path, everything_says_aarch64: bool) -> None:
    target = load_target("cpu")
    kit = write_kit(
        tmp_path / "kit",
        target=target,
        route=route_for(target, exported.opset),
        models=[KitModel("student", "fp32", exported.path, exported.sha256)],
        golden_images=golden_patterns(2, (3, 8, 8)),
        metadata={"tool": "test"},
    )
    script = kit.folder / "run_on_board.sh"
    script.write_text(script.read_text().replace("DURATION_S=10\n", "DURATION_S=1\n"))
    environment = {"PYTHON": f"{ARM_ROOT}/python"}
    if everything_says_aarch64:  # as in a whole user-space under qemu; what it sees of the processor is this machine's
        uname = tmp_path / "bin" / "uname"
        uname.parent.mkdir()
        uname.write_text("#!/bin/sh\necho aarch64\n")
        uname.chmod(0o755)
        environment["PATH"] = f"{uname.parent}:{os.environ['PATH']}"

    done = run_kit(kit.folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_board_result(kit.folder / "result.json")
    assert (result.simulated, result.board.architecture) == (True, "aarch64")
    assert result.kit_sha256 == kit.manifest_sha256
    parity = result.models[0].parity
    assert parity is not None
    assert (parity.count, parity.top1_agreement) == (2, 1)
    assert parity.max_rel < 1e-5

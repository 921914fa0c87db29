from __future__ import annotations

import copy
import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporters import torch_to_onnx
from exporters.errors import ExportError
from exporters.modules import device_of
from exporters.onnx_files import OnnxFile, read_onnx_metadata
from exporters.parity import check_parity
from exporters.runners import OnnxRunner, TorchRunner
from exporters.torch_to_onnx import onnx_from_torch

SHAPE = (3, 8, 8)


class Branching(nn.Module):
    """Which way it goes depends on the pixels, so no graph computes it."""

    def forward(self, images: Tensor) -> Tensor:
        pooled = images.mean(dim=(2, 3))
        return pooled if images.sum() > 0 else -pooled


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(inner)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)  # type: ignore[no-any-return]


class PoolToThree(nn.Module):
    """8 pixels into 3 cells: the older exporter has no operator for that."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 3).mean(dim=(2, 3))


class SingularValues(nn.Module):
    """ONNX has no singular value decomposition."""

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = torch.linalg.svdvals(images)
        return values.mean(dim=2)


class BakedBatch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, -1)


class EveryPixel(nn.Module):
    """Logits of every pixel from a smaller map, whose size the graph computes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.interpolate(self.body(images), images.shape[-2:], mode="bilinear", align_corners=False)


class TwoOutputs(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean(dim=(2, 3)), images


def assert_three_sentences(error: ExportError, received: str) -> None:
    for sentence in (error.received, error.expected, error.action):
        assert sentence.endswith(".")
    assert received in error.received


@pytest.mark.parametrize(
    ("ceiling", "opset", "exporter"),
    [
        (24, 20, "dynamo"),
        (20, 20, "dynamo"),
        (18, 18, "dynamo"),
        (17, 17, "torchscript"),
        (13, 13, "torchscript"),
    ],
)
def test_the_file_keeps_its_ceiling_and_computes_what_the_module_computes(
    classifier: nn.Module,
    tmp_path: Path,
    batches: list[NDArray[np.float32]],
    ceiling: int,
    opset: int,
    exporter: str,
) -> None:
    path = tmp_path / "student.onnx"
    file = onnx_from_torch(classifier, SHAPE, path, opset_ceiling=ceiling, metadata={"b": "2", "a": "é"})
    assert (file.path, file.opset, file.exporter) == (path, opset, exporter)

    content = path.read_bytes()
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.size_mib == len(content) / 1048576
    assert list(tmp_path.iterdir()) == [path]  # one file, nothing beside it

    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert read_onnx_metadata(path) == {"a": "é", "b": "2"}
    with OnnxRunner(path) as runner, TorchRunner(classifier) as reference:
        assert [str(spec) for spec in runner.inputs] == ["image float32 (batch, 3, 8, 8)"]
        parity = check_parity(reference, runner, batches, rtol=1e-5)
    assert parity.count == 10
    assert parity.top1_agreement == 1.0


@pytest.mark.parametrize("ceiling", [20, 17])
def test_logits_of_every_pixel_have_the_images_sides(tmp_path: Path, ceiling: int) -> None:
    torch.manual_seed(0)
    model, path = EveryPixel().eval(), tmp_path / "s.onnx"
    onnx_from_torch(model, (3, 9, 14), path, opset_ceiling=ceiling, metadata={})
    (output,) = onnx.load(path).graph.output
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", 5, 9, 14]
    images = torch.rand(7, 3, 9, 14)
    with OnnxRunner(path) as runner, torch.no_grad():
        logits = runner.infer({"image": images.numpy()})["logits"]
        np.testing.assert_allclose(logits, model(images).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ceiling", [20, 17])
def test_export_leaves_the_model_as_it_was(classifier: nn.Module, tmp_path: Path, ceiling: int) -> None:
    modes = {name: module.training for name, module in classifier.named_modules()}
    assert modes["body"]
    assert not modes["body.1"]
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    onnx_from_torch(classifier, SHAPE, tmp_path / "s.onnx", opset_ceiling=ceiling, metadata={})
    assert {name: module.training for name, module in classifier.named_modules()} == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_the_same_model_gives_the_same_bytes(exported: OnnxFile, classifier: nn.Module, tmp_path: Path) -> None:
    again = onnx_from_torch(classifier, SHAPE, tmp_path / "s.onnx", opset_ceiling=20, metadata={"tool": "test"})
    assert again.sha256 == exported.sha256


def test_the_file_holds_no_source_of_this_machine(exported: OnnxFile) -> None:
    content = exported.path.read_bytes()
    assert b"stack_trace" not in content
    assert b".py" not in content


@pytest.mark.parametrize(
    ("module", "ceiling"), [(None, 20), (None, 13), (Branching(), 20), (Branching(), 13), (PoolToThree(), 13)]
)
def test_torch_onnx_is_silent(
    classifier: nn.Module,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    module: nn.Module | None,
    ceiling: int,
) -> None:
    try:
        onnx_from_torch(module or classifier, SHAPE, tmp_path / "s.onnx", opset_ceiling=ceiling, metadata={})
    except ExportError:
        assert module is not None
    assert capfd.readouterr() == ("", "")
    os.write(1, b"stdout is back")
    assert capfd.readouterr() == ("stdout is back", "")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("inner", "ceiling", "message", "located"),
    [
        (Branching(), 20, "data-dependent", True),
        (Branching(), 13, "TracerWarning", True),
        (PoolToThree(), 13, "adaptive_avg_pool2d", False),
        (SingularValues(), 20, "svd", False),
        (SingularValues(), 13, "svdvals", False),
    ],
)
def test_a_model_that_cannot_be_exported(
    tmp_path: Path, inner: nn.Module, ceiling: int, message: str, located: bool
) -> None:
    model = Wrapped(inner).train()
    with pytest.raises(ExportError) as caught:
        onnx_from_torch(model, SHAPE, tmp_path / "s.onnx", opset_ceiling=ceiling, metadata={})
    assert_three_sentences(caught.value, message)
    assert f"could not export Wrapped{', in its module' if located else ' at'}" in caught.value.received
    assert (f"'inner.0' ({type(inner).__name__})" in caught.value.received) == located
    assert "choose another architecture" in caught.value.action
    assert caught.value.__cause__ is not None  # the whole story, for the log
    assert list(tmp_path.iterdir()) == []
    assert model.training


@pytest.mark.parametrize("ceiling", [20, 13])
@pytest.mark.parametrize(
    ("model", "given"),
    [
        (BakedBatch(), "and gives [("),
        (TwoOutputs(), "and gives [('batch', 3), ('batch', 3, 8, 8)]"),
        (nn.Conv2d(3, 5, 2, stride=2), "and gives [('batch', 5, 4, 4)]"),
    ],
)
def test_an_interface_that_is_not_images_to_logits(tmp_path: Path, model: nn.Module, given: str, ceiling: int) -> None:
    with pytest.raises(ExportError) as caught:
        onnx_from_torch(model, SHAPE, tmp_path / "s.onnx", opset_ceiling=ceiling, metadata={})
    assert_three_sentences(caught.value, given)
    assert "('batch', 3, 8, 8)" in caught.value.expected
    assert list(tmp_path.iterdir()) == []


def test_a_half_precision_model(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).half()
    with pytest.raises(ExportError) as caught:
        onnx_from_torch(model, SHAPE, tmp_path / "s.onnx", opset_ceiling=20, metadata={})
    assert_three_sentences(caught.value, "1.weight of Sequential is torch.float16")
    assert "float()" in caught.value.action


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_model_on_the_gpu_stays_there(exported: OnnxFile, classifier: nn.Module, tmp_path: Path) -> None:
    model = copy.deepcopy(classifier).cuda()
    file = onnx_from_torch(model, SHAPE, tmp_path / "s.onnx", opset_ceiling=20, metadata={"tool": "test"})
    assert file.sha256 == exported.sha256
    with TorchRunner(model, "cpu"):
        assert device_of(model).type == "cpu"
    assert device_of(model).type == "cuda"


def test_an_exporter_that_ignores_the_opset(
    classifier: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What dynamo does in torch 2.15 when it is asked for 17.
    monkeypatch.setitem(
        torch_to_onnx._EXPORT,
        "torchscript",
        lambda model, example, _opset: torch_to_onnx._export_dynamo(model, example, 18),
    )
    with pytest.raises(ExportError) as caught:
        onnx_from_torch(classifier, SHAPE, tmp_path / "s.onnx", opset_ceiling=17, metadata={})
    assert_three_sentences(caught.value, "opset 18")
    assert "17" in caught.value.expected
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_the_older_file(
    classifier: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.onnx"
    path.write_bytes(b"older")

    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        onnx_from_torch(classifier, SHAPE, path, opset_ceiling=13, metadata={})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize("content", [None, b"", b"\x08\x0a\xff\xff no model"])
def test_metadata_of_a_file_that_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError) as caught:
        read_onnx_metadata(path)
    assert_three_sentences(caught.value, str(path))
    assert "export the file again" in caught.value.action

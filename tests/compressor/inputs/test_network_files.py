"""Teachers that are run from their own file: what is to be had of them, and what they are refused for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import tiny
import tiny_networks
import tiny_onnx
import torch
from onnx import TensorProto, external_data_helper, helper
from torch import Tensor, nn

from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.intake import TeacherSource, inspect_checkpoint, read_teacher
from compressor.inputs.network_file import NETWORK_KINDS, NetworkKind
from compressor.inputs.network_intake import files_beside
from compressor.inputs.one_logit import ONE_LOGIT
from compressor.inputs.onnx_network import _in_one_piece, read_onnx
from compressor.inputs.teacher import LogitsTeacher, load_teacher
from compressor.inputs.teacher_onnx import onnx_from_teacher, teacher_footprint
from compressor.students.architectures import build_network
from exporters.errors import ExportError
from exporters.logits import onnx_logits
from exporters.macs import count_macs
from exporters.onnx_files import classifier_interface, load_onnx
from exporters.runners import OnnxRunner

STATED: dict[str, object] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))

kinds = pytest.mark.parametrize("kind", NETWORK_KINDS)


def source(path: Path, **flags: object) -> TeacherSource:
    size = {} if path.suffix != ".pt" else {"input_size": 8}  # TorchScript does not state it
    return read_teacher(path, trust_pickle=True, overrides={**STATED, **size, **flags})


def teacher_of(found: TeacherSource) -> LogitsTeacher:
    assert found.card is not None
    made = load_teacher(found.state_dict, found.card)
    assert isinstance(made, LogitsTeacher)
    return made


@kinds
def test_its_logits_are_those_of_the_network(tmp_path: Path, kind: NetworkKind) -> None:
    found = source(tiny_networks.write(tmp_path / tiny_networks.NAMES[kind], kind))
    assert found.card is not None
    assert (found.card.architecture, found.card.num_classes, found.card.input_shape) == (kind, 4, (3, 8, 8))
    teacher = teacher_of(found)
    expected = tiny_networks.network()(teacher.normalise(IMAGES))
    torch.testing.assert_close(teacher(IMAGES).logits, expected, rtol=1e-5, atol=1e-5)
    assert teacher.num_queries == len(IMAGES)
    assert not teacher.train().training


@kinds
def test_it_gives_logits_and_torch_gradients_too(tmp_path: Path, kind: NetworkKind) -> None:
    teacher = teacher_of(source(tiny_networks.write(tmp_path / tiny_networks.NAMES[kind], kind)))
    assert teacher.gives == ({"logits"} if kind == "onnx" else {"logits", "input_gradient"})
    assert not teacher.has_layers
    output = teacher(IMAGES)
    with pytest.raises(AttributeError, match="logits and no features"):
        output.features  # noqa: B018
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@kinds
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_its_onnx_file_is_of_our_form_and_answers_as_it_does(tmp_path: Path, kind: NetworkKind, order: str) -> None:
    found = source(tiny_networks.write(tmp_path / tiny_networks.NAMES[kind], kind))
    teacher = teacher_of(found)
    card = teacher.card.model_copy(update={"channel_order": order, "value_range": (0.0, 2.0)})
    teacher = LogitsTeacher(teacher.network, card)
    onnx_from_teacher(teacher, tmp_path / "out.onnx", opset_ceiling=20, metadata={"tool": "test"})
    interface = classifier_interface(load_onnx(tmp_path / "out.onnx"))
    assert (interface.input_name, interface.output_name, interface.batch) == ("image", "logits", None)
    with torch.no_grad():
        expected = teacher(IMAGES).logits.numpy()
    np.testing.assert_allclose(onnx_logits(tmp_path / "out.onnx", IMAGES.numpy()), expected, rtol=1e-4, atol=1e-4)
    assert teacher_footprint(teacher).macs == count_macs(tiny_networks.network(), (3, 8, 8))


def test_frozen_torchscript_is_one_too(tmp_path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.script(tiny_networks.network()))
    torch.jit.save(frozen, tmp_path / "t.pt")
    teacher = teacher_of(source(tmp_path / "t.pt"))
    onnx_from_teacher(teacher, tmp_path / "out.onnx", opset_ceiling=13, metadata={})
    assert "input_gradient" in teacher.gives


class Wrapped(nn.Module):
    def __init__(self, more: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.more = build_network(tiny.ARCHITECTURE, 4), more

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net((images - 0.5) / 0.25 if self.more else images)
        return logits


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
@pytest.mark.parametrize("more", [False, True])
def test_a_known_network_within_is_taken_only_if_it_is_all(tmp_path: Path, kind: NetworkKind, more: bool) -> None:
    path = tiny_networks.write(tmp_path / tiny_networks.NAMES[kind], kind, Wrapped(more).eval())
    found = source(path)
    assert found.card is not None
    assert found.card.architecture == (kind if more else tiny.ARCHITECTURE)
    assert any("answers otherwise" in warning for warning in found.warnings) == more
    named = read_teacher(path, trust_pickle=True, architecture=tiny.ARCHITECTURE, overrides=STATED)
    assert "fc.weight" in named.state_dict


def test_one_image_a_call_works_and_is_said(tmp_path: Path) -> None:
    found = source(tiny_onnx.write(tmp_path / "t.onnx", batch=1))
    assert any("one image a call" in warning for warning in found.warnings)
    assert teacher_of(found)(IMAGES).logits.shape == (5, 4)


def test_an_open_size_is_settled_by_the_flag_or_the_card(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "t.onnx", size="side")
    assert teacher_of(source(path, input_size=8)).card.input_shape == (3, 8, 8)
    (tmp_path / "t.yaml").write_text("input_shape: [3, 16, 12]\nclass_names: [a, b, c, d]\n")
    teacher = teacher_of(source(path))
    assert teacher.card.input_shape == (3, 16, 12)
    assert teacher.card.class_names == ("a", "b", "c", "d")
    onnx_from_teacher(teacher, tmp_path / "out.onnx", opset_ceiling=20, metadata={})
    assert classifier_interface(load_onnx(tmp_path / "out.onnx")).image_shape == (3, 16, 12)


def test_each_pixel_may_have_a_class_and_a_number_be_a_regression(tmp_path: Path) -> None:
    dense = source(tiny_networks.write(tmp_path / "d.onnx", "onnx", tiny_networks.network(dense=True)))
    assert dense.card is not None
    assert dense.card.task == "segmentation"
    assert teacher_of(dense)(IMAGES).logits.shape == (5, 4, 8, 8)
    number = tiny_networks.write(tmp_path / "n.onnx", "onnx", tiny_networks.network(outputs=1))
    found = source(number, task="regression")
    assert found.card is not None
    assert (found.card.task, found.card.num_classes) == ("regression", 1)


def test_weights_beside_it_come_along(tmp_path: Path) -> None:
    whole = tiny_onnx.write(tmp_path / "whole.onnx")
    model = onnx.load(whole)
    external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, tmp_path / "t.onnx")
    teacher = teacher_of(source(tmp_path / "t.onnx"))
    (tmp_path / "w.bin").unlink()
    assert torch.equal(teacher(IMAGES).logits, teacher_of(source(whole))(IMAGES).logits)


# --- the size of its images -------------------------------------------------------------------------------------------


def card_of(path: Path, **flags: object) -> TeacherSource:
    return read_teacher(path, trust_pickle=True, overrides={**STATED, **flags})


def test_the_flag_wins_over_the_cards_size(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "t.onnx", size="side")
    (tmp_path / "t.yaml").write_text("input_shape: [3, 16, 12]\n")
    found = source(path, input_size=(8, 24))
    assert (found.card_facts["input_shape"], found.origin["input_shape"]) == ((3, 8, 24), "a flag")
    stated = source(path)
    assert (stated.card_facts["input_shape"], stated.origin["input_shape"]) == ((3, 16, 12), "t.yaml")


class Few(nn.Module):
    """Takes 28x28 to 31x31 pixels: the pool leaves the same numbers of all of these."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(channels, 4, 3, padding=1), nn.MaxPool2d(4)
        self.last = nn.Linear(4 * 7 * 7, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.pool(self.first(images).relu()).flatten(1))
        return logits


def few(path: Path, channels: int = 3) -> Path:
    torch.manual_seed(0)
    torch.jit.trace(Few(channels).eval(), torch.rand(2, channels, 30, 30)).save(str(path))
    return path


def test_a_size_that_was_tried_is_an_assumption_and_is_said(tmp_path: Path) -> None:
    path = few(tmp_path / "t.pt")
    found = card_of(path)
    assert (found.card_facts["input_shape"], found.origin["input_shape"]) == ((3, 28, 28), "an assumption")
    (said,) = (warning for warning in found.warnings if "No input size is stated" in warning)
    assert "28x28 pixels" in said
    assert "--input-size" in said
    assert not any("No input size" in warning for warning in card_of(path, input_size=30).warnings)


def test_torchscript_may_take_four_channels(tmp_path: Path) -> None:
    path = few(tmp_path / "t.pt", 4)
    overrides = {"mean": [0.5] * 4, "std": [0.2] * 4}
    found = read_teacher(path, trust_pickle=True, overrides=overrides)
    assert (found.card_facts["input_shape"], found.card_facts["channel_order"]) == ((4, 28, 28), "RGBA")
    (tmp_path / "t.yaml").write_text("input_shape: [4, 30, 30]\n")
    assert read_teacher(path, trust_pickle=True, overrides=overrides).card_facts["input_shape"] == (4, 30, 30)
    (tmp_path / "t.yaml").write_text("input_shape: [3, 30, 30]\n")
    with pytest.raises(InputRefused, match=r"30x30 pixels with 3 channels, which t\.yaml states: RuntimeError: .*4"):
        read_teacher(path, trust_pickle=True, overrides=overrides)


@pytest.mark.parametrize(
    "shape", ["[3, a, b]", "[3, [1], 32]", "[3, 32.5, 32]", "[3, 32]", "32", "[3, 2, 32]", "[3, 99999, 99999]"]
)
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_a_cards_shape_that_is_none_is_the_cards_fault(tmp_path: Path, kind: NetworkKind, shape: str) -> None:
    path = tmp_path / tiny_networks.NAMES[kind]
    _ = tiny_onnx.write(path, size="side") if kind == "onnx" else tiny_networks.write(path, kind)
    (tmp_path / "t.yaml").write_text(f"input_shape: {shape}\n")
    with pytest.raises(InputRefused, match=r"The card of the teacher .* is wrong: input_shape from t\.yaml: .*must be"):
        card_of(path)


def test_a_size_without_end_is_refused_before_it_is_tried(tmp_path: Path) -> None:
    path = tiny_networks.write(tmp_path / "t.pt", "torchscript")
    with pytest.raises(InputRefused, match=r"input_shape from a flag: .*4 to 4096 pixels"):
        card_of(path, input_size=(99999, 99999))


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_another_size_than_the_files_is_the_fault_of_whoever_states_it(tmp_path: Path, kind: NetworkKind) -> None:
    path = tiny_networks.write(tmp_path / tiny_networks.NAMES[kind], kind)
    (tmp_path / "t.yaml").write_text("input_shape: [3, 64, 64]\n")
    with pytest.raises(InputRefused, match=r"The card t\.yaml states 64x64 .*takes 8x8.*Correct it") as caught:
        card_of(path)
    assert "--input-size" not in str(caught.value)
    assert card_of(path, input_size=8).card_facts["input_shape"] == (3, 8, 8)
    with pytest.raises(UsageFault, match="Leave --input-size out"):
        card_of(path, input_size=16)


def half_open(path: Path) -> Path:
    return tiny_networks.small_onnx(path, takes=("batch", 3, 32, "w"))


def test_a_side_that_the_file_fixes_has_to_be_stated_as_it_is(tmp_path: Path) -> None:
    path = half_open(tmp_path / "t.onnx")
    assert card_of(path, input_size=(32, 48)).card_facts["input_shape"] == (3, 32, 48)
    with pytest.raises(UsageFault, match=r"takes 32xany, .*Give --input-size a size that fits, such as 32x32"):
        card_of(path, input_size=64)
    with pytest.raises(InputRefused, match=r"open \(32xany\).*such as --input-size 32x32"):
        card_of(path)


# --- one logit --------------------------------------------------------------------------------------------------------


@kinds
def test_one_logit_is_a_yes_or_no_question(tmp_path: Path, kind: NetworkKind) -> None:
    one = tiny_networks.network(outputs=1)
    found = source(tiny_networks.write(tmp_path / tiny_networks.NAMES[kind], kind, one))
    assert ONE_LOGIT in found.warnings
    assert (found.card_facts["num_classes"], found.card_facts["class_names"]) == (2, ("0", "1"))
    teacher = teacher_of(found)
    with torch.no_grad():
        z = one(teacher.normalise(IMAGES))
        logits = teacher(IMAGES).logits
    torch.testing.assert_close(logits, torch.cat([torch.zeros_like(z), z], dim=1), rtol=1e-5, atol=1e-5)
    assert ("input_gradient" in teacher.gives) == (kind != "onnx")
    onnx_from_teacher(teacher, tmp_path / "out.onnx", opset_ceiling=20, metadata={})
    assert classifier_interface(load_onnx(tmp_path / "out.onnx")).num_classes == 2
    np.testing.assert_allclose(onnx_logits(tmp_path / "out.onnx", IMAGES.numpy()), logits, rtol=1e-4, atol=1e-4)
    assert teacher_footprint(teacher).macs == count_macs(one, (3, 8, 8))


def test_inspect_says_what_one_logit_becomes(tmp_path: Path) -> None:
    path = tiny_networks.write(tmp_path / "t.onnx", "onnx", tiny_networks.network(outputs=1))
    text = inspect_checkpoint(path).to_text()
    assert "gives 1 number for each image: classification or regression" in text
    assert "yes or no, with two logits" in text
    pixels = tiny_networks.write(tmp_path / "d.onnx", "onnx", tiny_networks.network(outputs=1, dense=True))
    assert "has 1 output for each pixel" in inspect_checkpoint(pixels).to_text()


# --- the rest of the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.onnx", "t.bin", "t"])
def test_files_beside_it_are_found_by_what_it_is(tmp_path: Path, name: str) -> None:
    model = onnx.load(tiny_onnx.write(tmp_path / "whole.onnx"))
    external_data_helper.convert_model_to_external_data(model, location="w.data", size_threshold=0)
    onnx.save(model, tmp_path / name)
    assert files_beside(tmp_path / name) == (tmp_path / "w.data",)
    assert files_beside(tmp_path / "w.data") == files_beside(tmp_path / "missing.onnx") == ()


def test_layers_in_a_function_of_the_file_are_counted(tmp_path: Path) -> None:
    path = tiny_networks.small_onnx(tmp_path / "t.onnx", domain="mine")
    model = onnx.load(path)
    body = [helper.make_node("Gemm", ["a", "b"], ["c"])]
    opset = model.opset_import[0]
    model.functions.append(helper.make_function("mine", "Gemm", ["a", "b"], ["c"], body, [opset]))
    onnx.save(model, path)
    assert teacher_footprint(teacher_of(source(path))).macs == 3 * 4


def test_a_network_without_arithmetic_has_no_size(tmp_path: Path) -> None:
    nodes = (
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    )
    path = tiny_networks.small_onnx(tmp_path / "t.onnx", nodes=nodes, gives=("batch", 3))
    with pytest.raises(ExportError, match="no convolution and no linear layer") as refusal:
        teacher_footprint(teacher_of(source(path)))
    assert "a student is sized by it" in refusal.value.expected


def test_an_onnx_file_is_run_on_as_many_threads_as_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    class Runner(OnnxRunner):
        def __init__(self, path: Path, threads: int | None = None, **more: Any) -> None:
            asked.append(threads)
            super().__init__(path, threads=threads, **more)

    monkeypatch.setattr("compressor.inputs.onnx_network.OnnxRunner", Runner)
    read_onnx(tiny_onnx.write(tmp_path / "t.onnx"))
    assert asked == [torch.get_num_threads()]


# --- refusals ---------------------------------------------------------------------------------------------------------


def outside(path: Path, location: str) -> Path:
    model = onnx.load(tiny_onnx.write(path))
    tensor = model.graph.initializer[0]
    external_data_helper.set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    onnx.save(model, path)
    return path


def linked(path: Path) -> Path:
    secret = path.parent.parent / f"{path.parent.name}.bin"
    secret.write_bytes(b"0" * 4096)
    (path.parent / "w.bin").symlink_to(secret)
    return outside(path, "w.bin")


def one_image_inside(path: Path) -> Path:
    """States any number of images, and makes one row of them."""
    nodes = (
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Reshape", ["mean", "one_row"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["logits"]),
    )
    model = onnx.load(tiny_networks.small_onnx(path, nodes=nodes))
    model.graph.initializer.append(helper.make_tensor("one_row", TensorProto.INT64, (2,), [1, 3]))
    onnx.save(model, path)
    return path


def logarithms(path: Path) -> Path:
    """Of means times -1."""
    nodes = (
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["negative"]),
        helper.make_node("Log", ["negative"], ["logits"]),
    )
    return tiny_networks.small_onnx(path, nodes=nodes, number=-1.0)


def training(path: Path, kind: NetworkKind) -> Path:
    return tiny_networks.write(path, kind, tiny_networks.network().train())


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_networks.network()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(images)
        return logits, logits * 2


class OfTwo(nn.Module):
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return (images + others).mean(dim=(2, 3))


def program_of_two(path: Path) -> Path:
    images = torch.rand(2, 3, 8, 8)
    torch.export.save(torch.export.export(OfTwo(), (images, images)), path)
    return path


def without_its_code(path: Path) -> Path:
    """TorchScript as its archive has it, but for the code."""
    whole = tiny_networks.write(path.with_name("whole.pt"), "torchscript")
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w") as kept:
        for name in archive.namelist():
            if "/code/" not in name:
                kept.writestr(name, archive.read(name))
    whole.unlink()
    return path


class Nothing(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))[:, :0]


def one_at_a_time(path: Path) -> Path:
    torch.export.save(torch.export.export(tiny_networks.network(), (torch.rand(1, 3, 8, 8),)), path)
    return path


@dataclass(frozen=True)
class Refused:
    make: Callable[[Path], object]
    words: tuple[str, ...]
    name: str = "t.onnx"
    error: type[CompressError] = InputRefused
    flags: dict[str, Any] = field(default_factory=dict)


small, whole = tiny_networks.small_onnx, tiny_onnx.write
DYNAMIC = "dynamic_shapes=({0: 'batch'},)"
REFUSED = {
    "empty protobuf": Refused(lambda p: p.write_bytes(b"\x08\x0a\x12\x00"), ("cannot be read as ONNX",)),
    "cut off": Refused(lambda p: p.write_bytes(whole(p).read_bytes()[:700]), ("cannot be read as ONNX",)),
    "weights above": Refused(lambda p: outside(p, "../w.bin"), ("'../w.bin'", "own folder")),
    "weights elsewhere": Refused(lambda p: outside(p, "/etc/passwd"), ("'/etc/passwd'", "own folder")),
    "weights behind a link": Refused(linked, ("'w.bin'", "own folder")),
    "weights missing": Refused(lambda p: outside(p, "w.bin"), ("cannot be read as ONNX",)),
    "custom operator": Refused(lambda p: small(p, domain="my.ops"), ("my.ops::Gemm", "foreign code")),
    "two inputs": Refused(lambda p: small(p, inputs=2), ("takes image float", "other float", "One input")),
    "no image": Refused(lambda p: small(p, takes=("batch", 3)), ("takes image float (batch, 3)", "One input")),
    "halves": Refused(lambda p: small(p, dtype=TensorProto.FLOAT16), ("image float16", "float32", "in float32")),
    "doubles": Refused(lambda p: small(p, dtype=TensorProto.DOUBLE), ("image double", "in float32")),
    "two outputs": Refused(lambda p: small(p, outputs=2), ("logits float (batch, 4); more1", "One output")),
    "five channels": Refused(lambda p: small(p, takes=("batch", 5, 8, 8)), ("5 channels", "1, 3 or 4 channels")),
    "channels last": Refused(lambda p: small(p, takes=("batch", 8, 8, 3)), ("8 channels and 8x3", "order (batch, ch")),
    "four at a time": Refused(lambda p: whole(p, batch=4), ("takes 4 images at a time", DYNAMIC)),
    "one row inside": Refused(one_image_inside, ("fails on 3", DYNAMIC)),
    "open size": Refused(lambda p: whole(p, size="side"), ("leaves the size of its images open", "--input-size")),
    "another size": Refused(whole, ("states 16x16", "takes 8x8"), error=UsageFault, flags={"input_size": 16}),
    "NaN": Refused(lambda p: small(p, number=float("nan")), ("holds NaN in weight", "earlier checkpoint")),
    "half inside": Refused(lambda p: whole(p, precision="fp16"), ("The teacher t.onnx holds", "16-bit floats")),
    "quantised": Refused(lambda p: whole(p, precision="int8"), ("The teacher t.onnx is quantised already",)),
    "unconnected": Refused(
        lambda p: small(p, nodes=(helper.make_node("Relu", ["nowhere"], ["logits"]),)),
        ("is not valid ONNX: ", "nowhere", "onnx.checker.check_model"),
    ),
    "no numbers": Refused(logarithms, ("answers random images with NaN", "before it diverged")),
    "program of two": Refused(program_of_two, ("takes another number of inputs", "One input of images"), "t.pt2"),
    "script without its code": Refused(without_its_code, ("(torchscript) cannot be opened: ",), "t.pt"),
    "more classes than a mask holds": Refused(
        lambda p: tiny_networks.write(p, "onnx", tiny_networks.network(outputs=256, dense=True)),
        ("gives 256 classes to each pixel", "At most 255"),
    ),
    "old opset": Refused(lambda p: small(p, opset=6), ("opset 6", "Opset 7")),
    "one class for each pixel": Refused(
        lambda p: tiny_networks.write(p, "onnx", tiny_networks.network(outputs=1, dense=True)),
        ("has 1 output for each pixel.", "at least 2 classes", "two for a yes-or-no question"),
    ),
    "one class name": Refused(
        lambda p: tiny_networks.write(p, "onnx", tiny_networks.network(outputs=1)),
        ("names one class, 'dog'", "State both"),
        flags={"class_names": ["dog"]},
    ),
    "no classes": Refused(
        lambda p: torch.jit.save(torch.jit.script(Nothing()), p),
        ("gives 0 numbers for an image", "One output"),
        "t.pt",
    ),
    "other task": Refused(whole, ("segmentation in a flag",), error=UsageFault, flags={"task": "segmentation"}),
    "more names": Refused(whole, ("have 4 classes and", "states 2"), flags={"class_names": ["a", "b"]}),
    "architecture": Refused(whole, ("--arch resnet18 is about",), error=UsageFault, flags={"architecture": "resnet18"}),
    "script in training": Refused(lambda p: training(p, "torchscript"), ("training mode", "model.eval()"), "t.pt"),
    "program in training": Refused(lambda p: training(p, "pt2"), ("training mode", "model.eval()"), "t.pt2"),
    "program for one": Refused(one_at_a_time, ("takes one image at a time", "Dim('batch')"), "t.pt2"),
    "two answers": Refused(
        lambda p: tiny_networks.write(p, "pt2", Both().eval()), ("a tuple of 2", "One out"), "t.pt2"
    ),
    "no image at all": Refused(
        lambda p: torch.jit.save(torch.jit.script(nn.Linear(5, 4)), p),
        ("takes no images of 8x8", "channels: RuntimeError: ", "mat1 and mat2 shapes", "--input-size"),
        "t.pt",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_in_three_sentences(tmp_path: Path, case: Refused) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / case.name
    case.make(path)
    with pytest.raises(CompressError) as caught:
        source(path, **case.flags)
    error = caught.value
    assert type(error) is case.error, error
    for sentence in (error.received, error.expected, error.action):
        assert sentence.endswith((".", "?", "`.")), sentence
    for word in case.words:
        assert word in str(error), error


def test_weights_beside_it_that_no_one_file_holds() -> None:
    class Heavy:
        def SerializeToString(self) -> bytes:
            raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB: 2400000000")

    with pytest.raises(InputRefused, match=r"t\.onnx and its weights do not fit .*2400000000\. Less than 2 GiB"):
        _in_one_piece(cast(onnx.ModelProto, Heavy()), "t.onnx")


def test_a_loop_without_end_is_stopped_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.inputs.onnx_network.TRIED_WITHIN_S", 0.5)
    with pytest.raises(
        InputRefused, match=r"t\.onnx was not through with image \(1, 3, 8, 8\) after 0\.5 s"
    ) as refusal:
        read_onnx(tiny_networks.endless_onnx(tmp_path / "t.onnx"))
    assert "Look for a Loop" in refusal.value.action


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
def test_nothing_is_opened_without_trust(tmp_path: Path, kind: NetworkKind) -> None:
    path = tiny_networks.write(tmp_path / tiny_networks.NAMES[kind], kind)
    with pytest.raises(InputRefused, match="add --trust-pickle"):
        read_teacher(path, overrides=STATED)


def test_an_opset_above_the_targets_is_refused_where_it_is_written(tmp_path: Path) -> None:
    teacher = teacher_of(source(tiny_onnx.write(tmp_path / "t.onnx")))
    with pytest.raises(ExportError, match=r"opset 17\. .*opset 13 at most.*opset_version=13"):
        onnx_from_teacher(teacher, tmp_path / "out.onnx", opset_ceiling=13, metadata={})


# --- compress inspect -------------------------------------------------------------------------------------------------


def test_inspect_says_what_an_onnx_file_takes_gives_and_is_good_for(tmp_path: Path) -> None:
    text = inspect_checkpoint(tiny_onnx.write(tmp_path / "t.onnx")).to_text()
    assert "takes images 3 x 8 x 8, gives 4 numbers for each image: classification or regression" in text
    assert "noise, pool, vanilla for classification; noise, vanilla for regression" in text
    assert f"Use it with --teacher {tmp_path}/t.onnx" in text
    text = inspect_checkpoint(tiny_onnx.write(tmp_path / "o.onnx", size="side")).to_text()
    assert "takes images 3 x any size" in text
    assert "--input-size SIZE" in text
    text = inspect_checkpoint(half_open(tmp_path / "h.onnx")).to_text()
    assert "takes images 3 x 32 x any" in text
    assert "--input-size 32xSIDE" in text


def test_inspect_says_why_an_onnx_file_is_no_teacher(tmp_path: Path) -> None:
    report = inspect_checkpoint(tiny_onnx.write(tmp_path / "t.onnx", batch=4))
    assert "takes 4 images at a time" in report.to_text()
    assert "Export it again" in report.way_forward

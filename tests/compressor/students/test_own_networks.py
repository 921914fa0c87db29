"""Networks of the user's own code: what is found of them, what is refused, and that the rest takes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import nn

from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.intake import TeacherSource, read_teacher
from compressor.inputs.own_code import OwnCode, own_code, pack, packed_code
from compressor.inputs.settle import checked_identity
from compressor.inputs.teacher import Teacher, load_teacher
from compressor.students.architectures import ARCHITECTURES, build_network
from compressor.students.last_layer import last_layer
from compressor.students.own_networks import know_own_network
from compressor.students.search import StudentLimits, search_student
from compressor.students.specification import build_backbone
from compressor.students.student import load_backbone, save_backbone

SIDES = (8, 8)
CODE = """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, num_outputs=4, channels=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(16, 12)
        self.fc = nn.Linear(12, num_outputs)

    def features(self, x):
        return F.relu(self.bn(self.conv(x))).mean((2, 3))

    def forward(self, x):
        return self.fc(self.drop(F.relu(self.hidden(self.features(x)))))

class Softmax(Net):
    def forward(self, x):
        return super().forward(x).log_softmax(1)

class Pair(Net):
    def forward(self, x):
        return super().forward(x), x

class Named(Net):
    def forward(self, x):
        return {"logits": super().forward(x)}

class Dense(Net):
    def forward(self, x):
        return self.conv(x)

class Single(Net):
    def __init__(self):
        super().__init__(1)

class Squeezed(Single):
    def forward(self, x):
        return super().forward(x).squeeze(1)

class Loose(Net):
    def forward(self, x):
        return super().forward(x).squeeze()

class Fixed(Net):
    def features(self, x):
        return F.relu(self.bn(self.conv(x))).view(len(x), 16, -1).mean(2)

class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(self.body(x)).mean((2, 3))

class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x):
        return self.net(x)

def asked(num_classes, in_channels):
    return Net(num_classes, in_channels)

def needs(width):
    return Net(width)

def fails():
    raise ValueError("no such setting")

def nothing():
    return None

SETTING = 3
print("code that prints")
"""

Write: TypeAlias = Callable[..., OwnCode]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """The code in a folder of its own, and one of its factories."""

    def written(factory: str, text: str = CODE, module: str = "net_of_a_test") -> OwnCode:
        (tmp_path / f"{module}.py").write_text(text)
        return own_code(f"{module}:{factory}", tmp_path / f"{module}.py")

    return written


def network(code: OwnCode, *arguments: int, factory: str = "") -> nn.Module:
    """What the user has trained: made by the code itself, without us."""
    space: dict[str, Any] = {"__name__": "user"}
    exec((code.root / code.files[0]).read_text(), space)
    torch.manual_seed(0)
    made: nn.Module = space[factory or code.factory](*arguments)
    return made.eval()


def read(code: OwnCode, trained: nn.Module, **overrides: Any) -> TeacherSource:
    torch.save(trained.state_dict(), code.root / "t.pt")
    channels = overrides.pop("channels", 1)
    stated = {"mean": (0.5,) * channels, "std": (0.5,) * channels, "input_size": SIDES, **overrides}
    return read_teacher(code.root / "t.pt", architecture=code.name, code=code.paths()[0], overrides=stated)


def taken(code: OwnCode, trained: nn.Module, **overrides: Any) -> Teacher:
    source = read(code, trained, **overrides)
    assert source.card is not None
    teacher = load_teacher(source.state_dict, source.card)
    assert checked_identity(teacher, None) is not None
    return teacher


def refusal(kind: type[CompressError], work: Callable[[], object], *words: str) -> CompressError:
    with pytest.raises(CompressError) as caught:
        work()
    found = caught.value
    assert type(found) is kind, found
    assert all(sentence.endswith((".", "?")) for sentence in (found.received, found.expected, found.action))
    for word in words:
        assert word in str(found)
    return found


# What is found


@pytest.mark.parametrize(
    ("factory", "arguments", "shape", "layer", "pools_scores"),
    [
        ("Net", (), (1, *SIDES), "fc", False),
        ("asked", (7, 4), (4, *SIDES), "fc", False),
        ("Scores", (), (1, *SIDES), "last", True),
        ("Flat", (), (1, *SIDES), "net.3", False),
    ],
)
def test_the_last_layer_is_found_and_the_answers_are_the_networks_own(
    write: Write,
    factory: str,
    arguments: tuple[int, ...],
    shape: tuple[int, int, int],
    layer: str,
    pools_scores: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = write(factory)
    trained = network(code, *arguments)
    capfd.readouterr()
    teacher = taken(code, trained, channels=shape[0])
    assert capfd.readouterr().out == ""  # what the code prints is no result of a command
    entry = ARCHITECTURES[code.name]
    assert (entry.classifier_layer, entry.pools_scores) == (layer, pools_scores)
    assert teacher.card.input_shape == shape
    images = torch.rand(3, *shape)
    with torch.no_grad():
        assert torch.allclose(teacher(images).logits, trained((images - 0.5) / 0.5), atol=1e-6)


def test_the_report_says_that_code_was_run(write: Write) -> None:
    code = write("Net")
    said = read(code, network(code)).warnings[0]
    assert said.startswith("Code was run: Net of net_of_a_test.py builds the teacher, because --arch named it.")
    assert "teacher/code.zip" in said


def test_one_logit_becomes_two_classes_and_stays_one_number(write: Write) -> None:
    code = write("Single")
    trained, images = network(code), torch.rand(3, 1, *SIDES)
    with torch.no_grad():
        answer = trained((images - 0.5) / 0.5)
    logits = taken(code, trained).forward(images).logits
    assert torch.allclose(logits.softmax(dim=1)[:, 1:], torch.sigmoid(answer), atol=1e-6)
    assert torch.allclose(taken(code, trained, task="regression").forward(images).logits, answer, atol=1e-6)


def test_a_dropped_dimension_is_refused_before_it_meets_the_exporter(write: Write) -> None:
    """torch leaves a dimension of two where `squeeze(1)` is, and ONNX knows no such thing."""
    code = write("Squeezed")
    refusal(InputRefused, lambda: know_own_network(code, SIDES), "shape (2,) for 2 images", ".squeeze()")
    code = write("Loose")
    refusal(InputRefused, lambda: read(code, network(code)), "the shape (4,) for a batch of 1", ".squeeze()")


def test_all_names_may_begin_with_the_networks_own_prefix_and_with_a_wrapper(write: Write) -> None:
    code = write("Flat")
    trained = network(code)
    wrapped = nn.Module()
    wrapped.module = trained
    source = read(code, wrapped)
    assert "Every key in t.pt begins with 'module.', which was dropped." in source.warnings
    assert list(source.state_dict) == list(trained.state_dict())


def test_changed_code_is_read_again_and_nothing_is_left_beside_it(write: Write) -> None:
    assert know_own_network(write("Net"), SIDES).classifier_layer == "fc"
    renamed = write("Net", CODE.replace("self.fc", "self.final"))
    assert know_own_network(renamed, SIDES).classifier_layer == "final"
    assert not (renamed.root / "__pycache__").exists()
    assert str(renamed.root) not in sys.path


def test_a_factory_may_import_when_it_is_called(write: Write) -> None:
    (write("Net").root / "beside_a_test.py").write_text("from net_of_a_test import Net")
    code = write("late", "def late():\n    from beside_a_test import Net\n    return Net()\n", module="late_net")
    assert code.files == ("late_net.py", "beside_a_test.py", "net_of_a_test.py")
    assert know_own_network(code, SIDES).classifier_layer == "fc"


# What is refused


@pytest.mark.parametrize(
    ("factory", "kind", "words"),
    [
        ("Softmax", InputRefused, ("that of none of its linear layers", "hidden, fc", "no softmax")),
        ("Pair", InputRefused, ("gives a tuple of 2 outputs", "inherits")),
        ("Named", InputRefused, ("gives a dictionary (logits)", "inherits")),
        ("Dense", InputRefused, ("gives a tensor of shape (2, 16, 8, 8) for 2 images",)),
        ("needs", InputRefused, ("missing 1 required positional argument", "a default")),
        ("fails", InputRefused, ("failed: ValueError: no such setting",)),
        ("nothing", InputRefused, ("gave a NoneType", "A torch.nn.Module")),
        ("SETTING", UsageFault, ("is no function or class",)),
        ("Squeezd", UsageFault, ("is not there", "Did you mean 'Squeezed'?")),
    ],
)
def test_factories_that_give_no_teacher(
    write: Write, factory: str, kind: type[CompressError], words: tuple[str, ...]
) -> None:
    refusal(kind, lambda: know_own_network(write(factory), SIDES), *words)


def test_code_that_does_not_run(write: Write) -> None:
    code = write("Net", "import not_there_at_all")
    refusal(InputRefused, lambda: know_own_network(code, SIDES), "does not run: ModuleNotFoundError", "__main__")


def test_images_that_the_network_does_not_take(write: Write) -> None:
    refusal(InputRefused, lambda: know_own_network(write("Flat"), (9, 8)), "images of 9x8 pixels", "--input-size")


def test_weights_of_another_network(write: Write) -> None:
    code = write("Net")
    trained = network(code, factory="Scores")
    refusal(InputRefused, lambda: read(code, trained), "missing (conv.weight", "with the same arguments")


def test_the_input_size_is_never_assumed(write: Write) -> None:
    code = write("Net")
    trained = network(code)
    refusal(InputRefused, lambda: read(code, trained, input_size=None), "input size", "is stated nowhere")
    (code.root / "t.yaml").write_text("input_shape: [1, 8, 8]\n")
    assert read(code, trained, input_size=None).card_facts["input_shape"] == (1, *SIDES)


@pytest.mark.parametrize("side", [0, 3, 4097, 10**9, pytest.param(10**5000, id="thousands of digits")])
def test_a_size_that_no_image_has_is_refused_before_one_is_made(write: Write, side: int) -> None:
    code = write("Net")
    trained = network(code)
    refusal(InputRefused, lambda: read(code, trained, input_size=(side, 8)), "is stated as", "4 to 4096 pixels")
    if side < 10**9:
        (code.root / "t.yaml").write_text(f"input_shape: [1, 8, {side}]\n")
        refusal(InputRefused, lambda: read(code, trained, input_size=None), "is stated as 8x", "4 to 4096 pixels")


def test_images_that_do_not_fit_into_memory_are_a_refusal() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2))
    refusal(InputRefused, lambda: last_layer("net", layers, (2**31, 2**31)), "does not take images of")


def test_modules_of_folders_that_the_code_adds_to_the_path_are_refused(write: Write, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "lib_of_a_test.py").write_text("WIDTH = 12\n")
    adds = f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\nimport lib_of_a_test\n"
    code, before = write("Net", adds + CODE), list(sys.path)
    words = ("imports lib_of_a_test from a folder that it adds to sys.path", "Put lib_of_a_test.py beside")
    refusal(InputRefused, lambda: know_own_network(code, SIDES), *words)
    assert sys.path == before
    # Nothing is wrong with a folder from which nothing comes, such as the code's own.
    own = "import os, sys\nsys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\n"
    assert know_own_network(write("Net", own + CODE), SIDES).classifier_layer == "fc"
    assert sys.path == before


def test_an_installed_package_is_not_replaced(write: Write) -> None:
    code = write("Net", module="torch")
    refusal(UsageFault, lambda: know_own_network(code, SIDES), "the name of an installed package", "Rename")
    assert sys.modules["torch"] is torch


# Students of it


@pytest.mark.parametrize("factory", ["Net", "Scores"])
def test_a_pruned_copy_is_made_again_from_the_archive(write: Write, tmp_path: Path, factory: str) -> None:
    code = write(factory)
    teacher = taken(code, network(code))
    pruned = build_backbone("prune:0.5", teacher, channel_multiple=4, seed=0, images=torch.rand(8, 1, *SIDES))
    save_backbone(pruned, tmp_path / "b.safetensors", tmp_path / "b.json")
    pack(code, tmp_path / "code.zip")
    code.paths()[0].unlink()
    know_own_network(packed_code(code.name, tmp_path / "code.zip"), SIDES)
    again = load_backbone(tmp_path / "b.safetensors", tmp_path / "b.json", 1)
    images = torch.rand(2, 1, *SIDES)
    assert torch.equal(again.eval()(images), pruned.eval()(images))
    assert again(images).shape[2:] == (1, 1)


def test_a_network_that_counts_on_its_widths_is_not_pruned_and_has_other_students(write: Write) -> None:
    code = write("Fixed")
    teacher = taken(code, network(code))
    refusal(
        InputRefused,
        lambda: build_backbone("prune:0.5", teacher, channel_multiple=4, seed=0),
        "Pruning net_of_a_test:Fixed by 0.5 failed",
        "--student auto",
    )
    refusal(
        InputRefused,
        lambda: build_backbone("width:0.5", teacher, channel_multiple=4, seed=0),
        "comes in one width",
    )
    assert build_backbone("cifar_resnet8", teacher, channel_multiple=4, seed=0).inherited == 0.0


def test_the_search_looks_at_pruned_copies(write: Write) -> None:
    code = write("Net")
    found = search_student(
        taken(code, network(code)),
        limits=StudentLimits(),
        channel_multiple=4,
        precision="fp32",
        latency_of=None,
        opset_ceiling=18,
        seed=0,
        note=lambda _: None,
    )
    assert found.chosen.startswith("prune:")


def test_a_factory_without_a_number_of_classes_gets_a_last_layer_of_as_many(write: Write) -> None:
    code = write("Net")
    know_own_network(code, SIDES)
    assert build_network(code.name, 9, 1)(torch.rand(2, 1, *SIDES)).shape == (2, 9)

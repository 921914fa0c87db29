"""Reading a teacher: what is accepted, what is known of it, and every refusal in three sentences."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from torch import Tensor, nn

from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import inspect_checkpoint, read_teacher, save_checkpoint
from compressor.inputs.teacher import load_teacher
from compressor.students.architectures import build_network

ARCH = "cifar_resnet8"
NAMES = ("cat", "dog", "no")
CARD: dict[str, Any] = {
    "architecture": ARCH,
    "num_classes": 3,
    "class_names": list(NAMES),
    "input_shape": [3, 16, 16],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2],
}


class Bomb:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


def weights(num_classes: int = 3, in_channels: int = 3, architecture: str = ARCH) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_network(architecture, num_classes, in_channels).state_dict())


def saved(path: Path, payload: object) -> Path:
    torch.save(payload, path)
    return path


def bare(tmp_path: Path, **options: Any) -> Path:
    return saved(tmp_path / "t.pt", weights(**options))


def assert_refused(error: CompressError, kind: type[CompressError], *parts: str) -> None:
    """Three sentences, each with its period, the expected class, and every part of the text."""
    assert type(error) is kind
    for sentence in (error.received, error.expected, error.action):
        assert re.search(r"[.?]$", sentence), sentence
    for part in parts:
        assert part in str(error)


def refusal(kind: type[CompressError], path: Path, *parts: str, **options: Any) -> CompressError:
    with pytest.raises(CompressError) as caught:
        read_teacher(path, **options)
    assert_refused(caught.value, kind, *parts)
    return caught.value


# What is accepted


def test_our_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    card, tensors = TeacherCard.model_validate(CARD), weights()
    save_checkpoint(tmp_path / "t.pt", tensors, card)
    source = read_teacher(tmp_path / "t.pt")
    assert source.card == card
    assert source.warnings == ()
    assert set(source.origin.values()) == {"the checkpoint"}
    assert all(torch.equal(source.state_dict[name], tensor) for name, tensor in tensors.items())
    assert set(source.state_dict) == set(tensors)
    load_teacher(source.state_dict, card)


def test_the_weights_survive_the_file(tmp_path: Path) -> None:
    path = bare(tmp_path)
    source = read_teacher(path, architecture=ARCH)
    path.write_bytes(b"gone")
    assert torch.equal(source.state_dict["fc.weight"], weights()["fc.weight"])


def test_a_bare_state_dict_with_a_card_beside_it(tmp_path: Path) -> None:
    path = bare(tmp_path)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(CARD))
    source = read_teacher(path)
    assert source.card == TeacherCard.model_validate(CARD)
    assert source.origin["mean"] == "t.yaml"
    assert source.origin["crop"] == "the default"


def test_later_sources_win_and_are_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "t.pt", weights(), TeacherCard.model_validate(CARD))
    (tmp_path / "t.yaml").write_text("mean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    other = tmp_path / "other.yaml"
    other.write_text("interpolation: bicubic\n")
    beside = read_teacher(tmp_path / "t.pt", overrides={"std": (2.0, 2.0, 2.0), "class_names": None, "input_size": 20})
    assert beside.card is not None
    assert (beside.card.mean, beside.card.std, beside.card.input_shape) == ((0,) * 3, (2,) * 3, (3, 20, 20))
    assert beside.origin["mean"] == "t.yaml"
    assert beside.origin["std"] == beside.origin["input_shape"] == "a flag"
    assert beside.origin["class_names"] == "the checkpoint"
    named = read_teacher(tmp_path / "t.pt", card_file=other)
    assert named.card is not None
    assert (named.card.interpolation, named.card.mean) == ("bicubic", (0.5, 0.4, 0.3))


def test_without_mean_and_std_the_card_stays_open(tmp_path: Path) -> None:
    source = read_teacher(bare(tmp_path, in_channels=1), architecture=ARCH)
    assert source.card is None
    assert not {"mean", "std", "value_range"} & source.card_facts.keys()
    assert source.card_facts["class_names"] == ("0", "1", "2")
    assert source.card_facts["input_shape"] == (1, 32, 32)
    assert source.card_facts["channel_order"] == "L"
    assert source.origin["num_classes"] == "the weights"
    assert source.origin["input_shape"] == source.origin["class_names"] == "an assumption"
    assert [("32x32" in text, "0 to 2" in text) for text in source.warnings] == [(False, True), (True, False)]
    card = source.card_with((0.1,), (0.3,))
    assert (card.mean, card.std, card.value_range) == ((0.1,), (0.3,), (0.0, 1.0))


def test_torchvision_networks_are_assumed_to_take_224_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", weights(architecture="resnet18"))
    source = read_teacher(path, architecture="resnet18", overrides={"mean": [0.5] * 3, "std": [0.5] * 3})
    assert source.card is not None
    assert source.card.input_shape == (3, 224, 224)
    assert "224x224" in " ".join(source.warnings)


def test_input_size_may_be_height_and_width(tmp_path: Path) -> None:
    source = read_teacher(bare(tmp_path), architecture=ARCH, overrides={"input_size": (24, 48)})
    assert source.card_facts["input_shape"] == (3, 24, 48)


def test_a_wrapper_around_the_keys_is_dropped_and_reported(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {f"module.{name}": tensor for name, tensor in weights().items()})
    source = read_teacher(path, architecture=ARCH)
    assert set(source.state_dict) == set(weights())
    assert source.warnings[0] == "Every key in t.pt begins with 'module.', which was dropped."


def test_old_and_half_precision_weights_load(tmp_path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in weights().items() if not name.endswith("num_batches_tracked")}
    source = read_teacher(
        saved(tmp_path / "t.pt", tensors), architecture=ARCH, overrides={"mean": [0] * 3, "std": [1] * 3}
    )
    assert source.card is not None
    assert load_teacher(source.state_dict, source.card).classifier.weight.dtype == torch.float32


def test_a_narrow_teacher_is_read_by_its_width(tmp_path: Path) -> None:
    tensors = build_network(ARCH, 3, width=0.5).state_dict()
    source = read_teacher(saved(tmp_path / "t.pt", tensors), architecture=ARCH, overrides={"width": 0.5})
    assert source.card_facts["width"] == 0.5


def test_layers_can_be_named(tmp_path: Path) -> None:
    source = read_teacher(bare(tmp_path), architecture=ARCH, feature_layer="layers.2", classifier_layer="fc")
    assert (source.card_facts["feature_layer"], source.card_facts["classifier_layer"]) == ("layers.2", "fc")


# Files that are not there, or not files


# Tasks


def test_the_task_follows_from_the_architecture(tmp_path: Path) -> None:
    classifier = read_teacher(bare(tmp_path), architecture=ARCH)
    assert (classifier.card_facts["task"], classifier.origin["task"]) == ("classification", "the default")
    source = read_teacher(bare(tmp_path, architecture="unet8"), architecture="unet8")
    assert (source.card_facts["task"], source.origin["task"]) == ("segmentation", "the default")
    assert source.card_facts["num_classes"] == 3
    assert source.card_facts["input_shape"] == (3, 256, 256)


@pytest.mark.parametrize("task", ["segmentation", "detection", 7])
def test_a_task_that_does_not_fit_is_refused(tmp_path: Path, task: object) -> None:
    path = bare(tmp_path)
    refusal(UsageFault, path, f"{task}", "a flag", architecture=ARCH, overrides={"task": task})
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({**CARD, "task": task}))
    refusal(InputRefused, path, f"{task}", "t.yaml")
    found = refusal(UsageFault, path, architecture=ARCH, overrides={"task": task})
    if task == "segmentation":
        assert "and its architecture is cifar_resnet8" in found.received
        assert "segmentation is done by deeplabv3_resnet101" in found.expected
        assert "makes it a classification" in found.action
    refusal(UsageFault, bare(tmp_path, architecture="unet8"), architecture="unet8", overrides={"task": "regression"})


def test_a_regression_may_have_one_output_whose_name_nobody_needs_to_state(tmp_path: Path) -> None:
    path = bare(tmp_path, num_classes=1)
    source = read_teacher(path, architecture=ARCH, overrides={"task": "regression", "input_size": 16})
    assert source.card_facts["class_names"] == ("out0",)
    assert source.warnings == ()


def test_torchvisions_auxiliary_classifier_is_dropped_and_reported(tmp_path: Path) -> None:
    network = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, aux_loss=True
    )
    path = saved(tmp_path / "t.pt", network.state_dict())
    assert inspect_checkpoint(path).architectures == ("deeplabv3_mobilenet_v3_large",)
    source = read_teacher(path, architecture="deeplabv3_mobilenet_v3_large")
    assert not any(name.startswith("aux_classifier") for name in source.state_dict)
    assert source.warnings[0] == (
        "The 8 tensors of the auxiliary classifier in t.pt were dropped: they help only in training."
    )
    card = source.card_with((0.5,) * 3, (0.5,) * 3)
    assert card.task == "segmentation"
    load_teacher(source.state_dict, card)


def test_our_checkpoint_of_a_segmentation_comes_back(tmp_path: Path) -> None:
    card = TeacherCard.model_validate({**CARD, "architecture": "unet8", "task": "segmentation"})
    save_checkpoint(tmp_path / "t.pt", weights(architecture="unet8"), card)
    assert read_teacher(tmp_path / "t.pt").card == card


def test_layers_of_a_segmentation_are_not_named(tmp_path: Path) -> None:
    path = bare(tmp_path, architecture="unet8")
    for field in ("feature_layer", "classifier_layer"):
        found = refusal(UsageFault, path, field, architecture="unet8", **{field: "classifier"})
        assert found.action == "Leave it out."


# What is refused


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").touch()
    refusal(InputRefused, tmp_path / "techer.pt", "techer.pt", "holds teacher.pt", "Did you mean 'teacher.pt'?")


def test_missing_folders_and_empty_ones(tmp_path: Path) -> None:
    refusal(InputRefused, tmp_path / "no" / "t.pt", "does not exist", "Check the path")
    refusal(InputRefused, tmp_path / "t.pt", "holds no files", "Check the path")


def test_a_folder_is_no_teacher(tmp_path: Path) -> None:
    refusal(InputRefused, tmp_path, "is a folder", "Name the file")


def test_an_unreadable_file_names_its_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bare(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    refusal(InputRefused, path, "may not be read", "chmod u+r")


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "is empty"), (b"hello there", "begins with the bytes"), (b"PK\x03\x04rest", "damaged or truncated")],
)
def test_files_without_a_checkpoint(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "t.pt").write_bytes(content)
    refusal(InputRefused, tmp_path / "t.pt", "t.pt", part, "save the weights once more")


def test_a_truncated_checkpoint(tmp_path: Path) -> None:
    path = bare(tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    refusal(InputRefused, path, "truncated", "Copy the file again", architecture=ARCH)


# Files of other kinds


def test_a_pickle_bomb_is_refused_by_its_import_and_never_run(tmp_path: Path) -> None:
    sentinel = tmp_path / "it_ran"
    for payload in (Bomb(sentinel), {"state_dict": weights(), "card": Bomb(sentinel)}):
        path = saved(tmp_path / "t.pt", payload)
        refusal(InputRefused, path, f"imports {os.mkdir.__module__}.mkdir", "run code", "Where you trust this file")
        assert inspect_checkpoint(path).imports == (f"{os.mkdir.__module__}.mkdir",)
    assert not sentinel.exists()


def test_a_pickled_module_says_how_to_save_its_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", nn.Linear(2, 2))
    error = refusal(InputRefused, path, "pickled module", "--arch NAME")
    assert "torch.save(torch.load('t.pt', weights_only=False).state_dict(), 'weights.pt')" in error.action


def test_the_way_forward_for_a_pickled_module_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "t.pt", build_network(ARCH, 3))
    error = refusal(InputRefused, path, "pickled module", "--trust-pickle")
    line = re.search(r"`(.*)`", error.action)
    assert line is not None
    monkeypatch.chdir(tmp_path)
    exec(line.group(1), {"torch": torch})
    assert read_teacher(tmp_path / "weights.pt").card_facts["architecture"] == ARCH


def test_what_only_looks_like_onnx_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.onnx").write_bytes(b"\x08\x0a\x12\x00")
    refusal(InputRefused, tmp_path / "t.onnx", "t.onnx cannot be read as ONNX", "export the file again")


# Architectures


def test_an_unknown_architecture_is_a_usage_fault(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {"a": torch.zeros(1), "b": torch.zeros(1)})
    refusal(UsageFault, path, "'resnet19'", "resnet18", "Did you mean 'resnet18'?", architecture="resnet19")


def test_an_unknown_architecture_in_a_card_is_an_input_refused(tmp_path: Path) -> None:
    path = bare(tmp_path)
    (tmp_path / "t.yaml").write_text("architecture: vgg15\n")
    refusal(InputRefused, path, "'vgg15' from t.yaml", "The weights fit cifar_resnet8")
    (tmp_path / "t.yaml").write_text("architecture: [vgg16]\n")
    refusal(InputRefused, path, "from t.yaml is unknown")


def test_a_bare_state_dict_is_recognised_by_its_keys_and_shapes(tmp_path: Path) -> None:
    source = read_teacher(bare(tmp_path))
    assert (source.card_facts["architecture"], source.origin["architecture"]) == (ARCH, "the weights")
    stranger = saved(tmp_path / "s.pt", {"a": torch.zeros(1), "b": torch.zeros(1)})
    refusal(InputRefused, stranger, "fits no known architecture: none is near", "--arch")
    renamed = {name.replace("layers.2", "stage3"): tensor for name, tensor in weights().items()}
    refusal(InputRefused, saved(tmp_path / "r.pt", renamed), f"{ARCH} is near", "missing (layers.2.0.conv1.weight, ")


def test_another_architecture_shows_the_differences_and_what_fits(tmp_path: Path) -> None:
    refusal(
        InputRefused,
        bare(tmp_path),
        "not those of resnet18, which a flag names",
        "95 missing (layer1.0.conv1.weight, ",
        "48 unexpected (layers.0.0.conv1.weight, ",
        "conv1.weight (16, 3, 3, 3) instead of (64, 3, 7, 7)",
        f"--arch {ARCH}",
        architecture="resnet18",
    )
    stranger = saved(tmp_path / "s.pt", {"a": torch.zeros(1), "b": torch.zeros(1)})
    refusal(InputRefused, stranger, "2 unexpected (a, b)", "fit no other architecture", architecture="resnet18")


def test_too_few_classes(tmp_path: Path) -> None:
    tensors = weights() | {"fc.weight": torch.zeros(0, 64), "fc.bias": torch.zeros(0)}
    path = saved(tmp_path / "t.pt", tensors)
    refusal(InputRefused, path, "has 0 classes", "at least 2", "two for a yes-or-no", architecture=ARCH)


@pytest.mark.parametrize("name", ["multilabel", "multi-label"])
def test_several_labels_for_one_image_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    path = bare(tmp_path)
    (tmp_path / "t.yaml").write_text(f"task: {name}\n")
    refusal(InputRefused, path, f"is '{name}' in t.yaml", "compare softmaxes", "--task regression", architecture=ARCH)


def test_a_card_does_not_make_code_run(tmp_path: Path) -> None:
    path = bare(tmp_path)
    (tmp_path / "t.yaml").write_text("architecture: mynet:build\n")
    refusal(InputRefused, path, "from t.yaml names code", "Where it is your own, add --arch mynet:build.")


def test_four_channels_are_read_off_the_weights(tmp_path: Path) -> None:
    source = read_teacher(bare(tmp_path, in_channels=4), overrides={"input_size": 16})
    assert source.card_facts["input_shape"] == (4, 16, 16)
    assert source.card_facts["channel_order"] == "RGBA"
    card = source.card_with((0.5,) * 4, (0.25,) * 4)
    assert load_teacher(source.state_dict, card)(torch.rand(2, 4, 16, 16)).logits.shape == (2, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    tensors = weights()
    tensors["layers.1.0.conv2.weight"][0, 0, 0, 0] = value
    path = saved(tmp_path / "t.pt", tensors)
    refusal(InputRefused, path, "layers.1.0.conv2.weight", "earlier checkpoint", architecture=ARCH)
    assert inspect_checkpoint(path).non_finite == ("layers.1.0.conv2.weight",)


def test_layers_that_do_not_exist(tmp_path: Path) -> None:
    path = bare(tmp_path)
    refusal(UsageFault, path, "'layer'", "Did you mean 'layers'?", architecture=ARCH, feature_layer="layer")
    refusal(UsageFault, path, "'conv1'", "Possible are fc.", architecture=ARCH, classifier_layer="conv1")


# Cards


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("meen: [0, 0, 0]\n", ("unknown field 'meen'", "Did you mean 'mean'?")),
        ("xyzzy: 1\n", ("unknown field 'xyzzy'", "Remove the field")),
        ("- a\n- b\n", ("is a list", "one field per line")),
        ("mean: [0.5\n", ("cannot be read", "state its fields as flags")),
        ("mean: [0.5, 0.5, 0.5]\n", ("mean of the teacher t.pt is stated in t.yaml and its std is not",)),
        ("std: [0.5, 0.5, 0.5]\n", ("its mean is not", "State the mean")),
        ("mean: [0.5]\nstd: [0.5]\n", ("mean and std need 3 numbers each",)),
        ("mean: [.nan, 0, 0]\nstd: [1, 1, 1]\n", ("must be finite",)),
        ("mean: [0, 0, 0]\nstd: [1, 0, 1]\n", ("std must be positive",)),
        ("class_names: [cat, dog]\n", ("have 3 classes and t.yaml states 2",)),
        ("num_classes: 4\nclass_names: [a, b, c, d]\n", ("have 3 classes and t.yaml states 4", "Correct num_classes")),
        ("num_classes: 3\nclass_names: [a, b]\n", ("2 class_names for 3 classes",)),
        ("class_names: [cat, dog, no]\n", ("class_names.2 from t.yaml", "False", "in quotes")),
        ("class_names: [cat, dog, dog]\n", ("must differ",)),
        ("input_shape: [1, 16, 16]\nchannel_order: L\n", ("have 3 image channels and t.yaml states 1",)),
        ("width: wide\n", ("width from t.yaml", "'wide'")),
        ("crop: none\nresize: 20\n", ("without a crop",)),
        ("card_version: 2\n", ("card_version from t.yaml",)),
    ],
)
def test_a_card_that_is_wrong(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = bare(tmp_path)
    (tmp_path / "t.yaml").write_text(text)
    refusal(InputRefused, path, *parts, architecture=ARCH)


def test_card_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = bare(tmp_path)
    refusal(InputRefused, path, "no.yaml", "cannot be read", architecture=ARCH, card_file=tmp_path / "no.yaml")
    (tmp_path / "t.yaml").write_bytes(b"\xff\xfe\x00")
    refusal(InputRefused, path, "t.yaml", "cannot be read", architecture=ARCH)
    (tmp_path / "t.yaml").write_text("#" * (2**20 + 1))
    refusal(InputRefused, path, "no text file of at most 1 MiB", architecture=ARCH)


def test_an_empty_card_states_nothing(tmp_path: Path) -> None:
    path = bare(tmp_path)
    (tmp_path / "t.yaml").write_text("# nothing yet\n")
    assert read_teacher(path, architecture=ARCH).card is None


def test_an_embedded_card_of_the_wrong_type(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {"state_dict": weights(), "card": [1, 2]})
    refusal(InputRefused, path, "in the checkpoint is a list", architecture=ARCH)


def test_class_names_that_yaml_reads_as_numbers_stay_names(tmp_path: Path) -> None:
    path = bare(tmp_path)
    (tmp_path / "t.yaml").write_text("class_names: [7, 8, 09]\n")
    assert read_teacher(path, architecture=ARCH).card_facts["class_names"] == ("7", "8", "09")


# Saving and inspecting


def test_saving_is_atomic_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, tensors = TeacherCard.model_validate(CARD), weights()
    save_checkpoint(tmp_path / "a.pt", tensors, card)
    save_checkpoint(tmp_path / "b.pt", tensors, card)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = (tmp_path / "a.pt").read_bytes()
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "a.pt", weights(5), card)
    assert (tmp_path / "a.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_a_view_is_saved_without_what_it_looks_into(tmp_path: Path) -> None:
    tensors = weights() | {"fc.bias": torch.zeros(1_000_000)[:3]}
    save_checkpoint(tmp_path / "t.pt", tensors, TeacherCard.model_validate(CARD))
    assert (tmp_path / "t.pt").stat().st_size < 1_000_000


def test_inspection_describes_a_state_dict(tmp_path: Path) -> None:
    path = bare(tmp_path)
    report = inspect_checkpoint(path)
    assert (report.kind, report.num_tensors, report.architectures) == ("state dict", 56, (ARCH,))
    assert report.first_tensors[0] == ("conv1.weight", (16, 3, 3, 3))
    assert report.dtypes == {"float32": 47, "int64": 9}
    assert report.num_values == sum(t.numel() for t in weights().values() if t.is_floating_point())
    assert report.way_forward.endswith(f"--arch {ARCH}.")
    assert json.loads(json.dumps(report.to_dict()))["sha256"] == report.sha256
    assert f"fits {ARCH}" in report.to_text()
    assert "conv1.weight (16, 3, 3, 3)" in report.to_text()


def test_inspection_shows_the_card(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "t.pt", weights(), TeacherCard.model_validate(CARD))
    report = inspect_checkpoint(tmp_path / "t.pt")
    assert report.kind == "compress checkpoint"
    assert "mean: [0.5, 0.4, 0.3]" in report.to_text()


def test_inspection_of_what_is_no_checkpoint_still_reports(tmp_path: Path) -> None:
    (tmp_path / "t.pt").touch()
    report = inspect_checkpoint(tmp_path / "t.pt")
    assert (report.kind, report.size_bytes, report.num_tensors) == ("not a checkpoint", 0, 0)
    assert "is empty" in report.to_text()
    with pytest.raises(InputRefused, match="There is no teacher"):
        inspect_checkpoint(tmp_path / "u.pt")


def test_inspection_names_imports_and_strangers(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", nn.Linear(2, 2))
    assert "would import" in inspect_checkpoint(path).to_text()
    stranger = inspect_checkpoint(saved(tmp_path / "s.pt", {"a": torch.zeros(1), "b": torch.zeros(1)}))
    assert "fits none of" in stranger.way_forward

"""Which of the tensors in a training checkpoint are taken, and that nothing of it runs."""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.checkpoint_file import open_contents
from compressor.inputs.harmless import HARMLESS
from compressor.inputs.intake import inspect_checkpoint, read_teacher
from compressor.inputs.training_file import NoWeights, find_weights
from compressor.inputs.wrapped import network_tensors
from compressor.students.architectures import build_network

ARCH = "cifar_resnet8"


def weights(value: float | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    tensors = dict(build_network(ARCH, 3).state_dict())
    return tensors if value is None else {name: torch.full_like(tensor, value) for name, tensor in tensors.items()}


def saved(path: Path, payload: object) -> Path:
    torch.save(payload, path)
    return path


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def trained(network: nn.Module) -> dict[str, Any]:
    """The state of an optimiser after a step."""
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 3, 16, 16)).sum().backward()
    optimiser.step()
    return optimiser.state_dict()


# Where the weights are


KEYS = ("state_dict", "model", "model_state_dict", "net", "network", "teacher", "params")
AVERAGES = ("ema", "model_ema", "ema_state_dict", "state_dict_ema")


@pytest.mark.parametrize("key", [*KEYS, *AVERAGES])
def test_weights_are_found_under_any_key(tmp_path: Path, key: str) -> None:
    payload = {"epoch": 3, key: weights(), "optimizer": trained(build_network(ARCH, 3)), "best": torch.tensor(0.9)}
    source = read_teacher(saved(tmp_path / "t.pt", payload))
    assert set(source.state_dict) == set(weights())
    assert torch.equal(source.state_dict["fc.weight"], weights()["fc.weight"])
    assert source.origin["architecture"] == "the weights"


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net.", "backbone.", "_orig_mod.", "module._orig_mod.", "model.module.net."]
)
def test_prefixes_that_all_names_share_go(tmp_path: Path, prefix: str) -> None:
    path = saved(tmp_path / "t.pt", {"state_dict": prefixed(weights(), prefix)})
    source = read_teacher(path)
    assert set(source.state_dict) == set(weights())
    assert source.warnings[0] == f"Every key in t.pt begins with '{prefix}', which was dropped."


def test_other_modules_beside_the_network_are_left_and_named(tmp_path: Path) -> None:
    tensors = {
        **prefixed(weights(), "model._orig_mod."),
        "criterion.weight": torch.ones(3),
        "metric.total": torch.ones(1),
    }
    source = read_teacher(saved(tmp_path / "t.ckpt", {"state_dict": tensors, "epoch": 1}))
    assert set(source.state_dict) == set(weights())
    assert (
        "the 2 tensors outside of 'model._orig_mod.' (criterion.weight, metric.total) were dropped"
        in source.warnings[0]
    )


def test_the_average_is_taken_and_said_and_the_flag_takes_the_other(tmp_path: Path) -> None:
    average = {"n_averaged": torch.tensor(5), **prefixed(weights(0.5), "module.")}
    path = saved(tmp_path / "t.pt", {"model": weights(), "model_ema": average, "args": argparse.Namespace(lr=0.1)})
    source = read_teacher(path)
    assert float(source.state_dict["fc.bias"][0]) == 0.5
    assert "weights under 'model' and their moving average under 'model_ema'" in source.warnings[0]
    assert "--weights model takes the other" in source.warnings[0]
    other = read_teacher(path, weights_key="model")
    assert torch.equal(other.state_dict["fc.weight"], weights()["fc.weight"])
    assert inspect_checkpoint(path).notes[0] == source.warnings[0]


def test_an_average_within_one_state_dict_is_taken(tmp_path: Path) -> None:
    tensors = {**prefixed(weights(), "model."), **prefixed(weights(0.5), "model_ema.module.")}
    path = saved(tmp_path / "t.ckpt", {"state_dict": tensors})
    source = read_teacher(path)
    assert float(source.state_dict["fc.bias"][0]) == 0.5
    assert "--weights model takes the other" in source.warnings[0]
    assert torch.equal(read_teacher(path, weights_key="model").state_dict["fc.weight"], weights()["fc.weight"])


def test_two_networks_are_a_question(tmp_path: Path) -> None:
    tensors = {**prefixed(weights(), "student."), **prefixed(weights(0.5), "teacher.")}
    path = saved(tmp_path / "t.ckpt", {"state_dict": tensors})
    with pytest.raises(InputRefused, match=r"holds 2 networks: cifar_resnet8 below 'student.'") as caught:
        read_teacher(path)
    assert "--weights student" in caught.value.action
    for key in ("teacher", "state_dict.teacher"):
        assert float(read_teacher(path, weights_key=key).state_dict["fc.bias"][0]) == 0.5
    assert "holds 2 networks" in inspect_checkpoint(path).to_text()


def test_a_narrow_network_below_a_prefix_is_found_by_its_classifier(tmp_path: Path) -> None:
    narrow = build_network(ARCH, 3, width=0.5).state_dict()
    tensors = {**prefixed(narrow, "model."), "criterion.weight": torch.ones(3)}
    path = saved(tmp_path / "t.ckpt", {"state_dict": tensors})
    source = read_teacher(path, architecture=ARCH, overrides={"width": 0.5})
    assert set(source.state_dict) == set(narrow)


def test_a_key_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {"model": weights(), "epoch": 1})
    with pytest.raises(InputRefused, match=r"no weights under 'ema' \(tensors by name are under model\)"):
        read_teacher(path, weights_key="ema")
    with pytest.raises(InputRefused, match="no weights under 'ema'"):
        read_teacher(saved(tmp_path / "t.pt", weights()), weights_key="ema")


def test_optimisers_and_metrics_are_no_weights() -> None:
    state = trained(build_network(ARCH, 3))
    with pytest.raises(NoWeights):
        find_weights({"optimizer": {"exp_avg": {"w": torch.zeros(2, 2)}}, "loss": torch.tensor(1.0), "more": state})
    assert find_weights({"momentum": weights(), "net": {"fc.weight": torch.zeros(2, 2)}}).key == "net"


def test_a_depth_without_end_ends() -> None:
    payload: dict[str, Any] = {}
    payload["again"] = payload
    with pytest.raises(NoWeights):
        find_weights(payload)


def test_nothing_to_drop_is_said_of_plain_weights() -> None:
    tensors, said = network_tensors("t.pt", weights())
    assert (list(tensors), said) == (list(weights()), [])


# What is read, and as what


HARMLESS_VALUES: dict[str, Callable[[], object]] = {
    "numpy scalars": lambda: [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True)],
    "numpy arrays": lambda: np.arange(6.0).reshape(2, 3),
    "options": lambda: argparse.Namespace(lr=0.1, data=Path("data")),
    "paths": lambda: [pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("c:/d")],
    "default dict": lambda: defaultdict(list, a=[1]),
    "ordered dict": lambda: OrderedDict(a=1),
}


@pytest.mark.parametrize("what", HARMLESS_VALUES)
def test_harmless_things_beside_the_weights_are_read(tmp_path: Path, what: str) -> None:
    path = saved(tmp_path / "t.pt", {"state_dict": weights(), "extra": HARMLESS_VALUES[what]()})
    contents = open_contents(path)
    assert (contents.kind, contents.imports, contents.reason) == ("training checkpoint", (), "")
    assert read_teacher(path).card_facts["architecture"] == ARCH


def test_lightnings_own_dict_is_read_without_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "lightning.fabric.utilities.data"
    module = ModuleType(name)
    kind = type("AttributeDict", (dict,), {"__module__": name})
    module.AttributeDict = kind  # type: ignore[attr-defined]
    with monkeypatch.context() as during:
        for parent in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
            during.setitem(sys.modules, parent, ModuleType(parent))
        during.setitem(sys.modules, name, module)
        path = saved(tmp_path / "t.ckpt", {"state_dict": weights(), "hyper_parameters": kind(lr=0.1)})
    assert open_contents(path).kind == "training checkpoint"
    assert name not in sys.modules


def test_no_harmless_name_can_run_or_open_anything() -> None:
    modules = {name.rpartition(".")[0] for name in HARMLESS}
    assert not modules & {
        "os",
        "subprocess",
        "shutil",
        "importlib",
        "runpy",
        "torch",
        "numpy.lib",
        "functools",
        "operator",
    }
    assert {name for name in HARMLESS if name.startswith("builtins.")} == {
        f"builtins.{kind}" for kind in ("dict", "float", "int", "list", "str", "tuple")
    }


def test_an_array_of_objects_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {"state_dict": weights(), "extra": np.array([{}], dtype=object)})
    assert open_contents(path).kind == "unreadable"


def test_what_else_a_checkpoint_imports_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {"state_dict": weights(), "schedule": re.compile("a"), "lr": np.float64(1)})
    with pytest.raises(InputRefused, match=r"imports re\._compile") as caught:
        read_teacher(path)
    assert "add --trust-pickle" in caught.value.action


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_orders_come_as_single_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights().items()}
    tensors = {n: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for n, v in tensors.items()}
    source = read_teacher(saved(tmp_path / "t.pt", tensors))
    for name, tensor in source.state_dict.items():
        assert tensor.is_contiguous()
        assert tensor.dtype == (torch.float32 if weights()[name].is_floating_point() else torch.int64)
        assert torch.allclose(tensor, weights()[name], atol=1e-2)


# safetensors


def test_safetensors_are_taken_with_or_without_metadata(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_file(prefixed(weights(), "model."), path, {"format": "pt"})
    source = read_teacher(path)
    assert source.card_facts["architecture"] == ARCH
    save_file(weights(), path, {"card": '{"architecture": "cifar_resnet8", "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]}'})
    source = read_teacher(path)
    assert source.card is not None
    assert source.card.mean == (0.5, 0.5, 0.5)
    assert source.origin["mean"] == "the file's metadata"
    assert inspect_checkpoint(path).way_forward.endswith(f"--arch {ARCH}.")


@pytest.mark.parametrize("metadata", [{"architecture": "resnet99"}, {"card": "no json"}, {"card": "[1]"}])
def test_wrong_metadata_is_refused_by_name(tmp_path: Path, metadata: dict[str, str]) -> None:
    save_file(weights(), tmp_path / "t.safetensors", metadata)
    with pytest.raises(InputRefused, match="the file's metadata"):
        read_teacher(tmp_path / "t.safetensors")


def test_a_truncated_or_empty_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputRefused, match="damaged or truncated"):
        read_teacher(path)
    save_file({}, path)
    with pytest.raises(InputRefused, match="without tensors"):
        read_teacher(path)

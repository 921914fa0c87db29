"""Which teachers are taken in: architectures times the kinds of file that people save them in.

    python -m benchmarks.teachers files [--only resnet18 ...]    save, take in, one row per architecture
    python -m benchmarks.teachers ways [--only resnet18 ...]     inspect, one distillation step, export, parity
    python -m benchmarks.teachers page                           docs/teachers.md from the rows
    python -m benchmarks.teachers forms                          the table by which architectures are recognised

All weights are random. `files` really saves each kind of file and reads it back through `read_teacher`, as `compress
run` does: a cell is "works" where the network that comes back gives the logits of the one that was saved, or else the
refusal. `ways` goes the way of a run at the smallest image that the network takes: `inspect` names the architecture;
one step of DFAD, which needs the teacher's gradient, and one of KD3, which needs its last map and its classifier, train
a small student each; the teacher and KD3's student are exported as ONNX and compared with torch. Rows are appended as
they are finished, and what has a row is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from benchmarks.rows import append_row, provenance, write_between
from compressor.distill.training import Context
from compressor.errors import CompressError
from compressor.inputs.card import TeacherCard
from compressor.inputs.identify import computed_form, expected_forms
from compressor.inputs.intake import TeacherSource, inspect_checkpoint, read_teacher, save_checkpoint
from compressor.inputs.known_forms import TABLE, known_forms, written_forms
from compressor.inputs.settle import checked_identity
from compressor.inputs.teacher import Classifier, load_teacher
from compressor.methods import TrainingImages, load_method
from compressor.students.architectures import ARCHITECTURES, build_network, is_architecture, teacher_architectures
from compressor.students.student import named_backbone
from compressor.students.timm_networks import RECOGNISED
from exporters.parity import check_parity
from exporters.runners import OnnxRunner, TorchRunner
from exporters.torch_to_onnx import onnx_from_torch
from profiles.errors import ToolError

RESULTS = Path("benchmarks/results/teachers.json")
PAGE = Path("docs/teachers.md")
NUM_CLASSES = 7
OPSET = 18
NORMALISED: dict[str, object] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
SMALLEST = {"alexnet": 64, "inception": 80, "vgg": 32, "deeplab": 32, "lraspp": 32, "unet": 32}
SETTINGS: Mapping[str, float] = {"_lr": 1e-4, "_steps": 1, "_every": 1, "_batch_size": 2, "_width": 8, "latent_dim": 4}
"""A method's settings by how their names end, small."""
METHODS = {"classification": ("dfad", "kd3"), "segmentation": ("dfad", "vanilla"), "regression": ("dfad",)}
# Traced and exported files of these alone: tracing a large network takes minutes and says nothing new.
TRACED = (
    "cifar_resnet8",
    "resnet18",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "mnasnet0_5",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "googlenet",
    "vgg11_bn",
    "convnext_tiny",
    "swin_t",
)


# --- The kinds of file -----------------------------------------------------------------------------------------------


def _with_prefix(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


def _lightning(network: nn.Module) -> dict[str, Any]:
    """As Lightning's Trainer saves a module that holds its network as `model` and a weighted loss beside."""
    return {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {**_with_prefix(network, "model."), "criterion.weight": torch.ones(NUM_CLASSES)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'acc'}": {"best_model_score": torch.tensor(0.9), "dirpath": "out"}},
        "optimizer_states": [_optimiser(network)],
        "lr_schedulers": [{"last_epoch": 3}],
        "hyper_parameters": Namespace(lr=np.float64(0.1), data=Path("data")),
    }


def _timm(network: nn.Module) -> dict[str, Any]:
    """As timm's training script saves: weights, their moving average, options."""
    return {
        "epoch": 3,
        "arch": "a_name",
        "state_dict": _with_prefix(network, "module."),
        "state_dict_ema": network.state_dict(),
        "optimizer": _optimiser(network),
        "args": Namespace(lr=0.1, output=Path("out")),
        "metric": np.float64(76.5),
    }


def _optimiser(network: nn.Module) -> dict[str, Any]:
    """The state of an optimiser, of which a few parameters have a momentum."""
    few = [parameter for parameter in network.parameters()][:3]
    optimiser = torch.optim.SGD(few, lr=0.1, momentum=0.9)
    for parameter in few:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for parameter in network.parameters():
        parameter.grad = None
    return optimiser.state_dict()


def _save_own(network: nn.Module, path: Path, name: str) -> None:
    side = smallest_side(name)
    card = TeacherCard(
        architecture=name,
        task=ARCHITECTURES[name].tasks[0],
        num_classes=NUM_CLASSES,
        class_names=tuple(str(index) for index in range(NUM_CLASSES)),
        input_shape=(3, side, side),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    save_checkpoint(path, network.state_dict(), card)


def _save_safetensors(network: nn.Module, path: Path, name: str) -> None:
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path, {"architecture": name})


def _save_traced(network: nn.Module, path: Path, name: str) -> None:
    side = smallest_side(name)
    torch.jit.save(torch.jit.trace(network, torch.rand(2, 3, side, side), check_trace=False), path)


def _save_exported(network: nn.Module, path: Path, name: str) -> None:
    side = smallest_side(name)
    torch.export.save(torch.export.export(network, (torch.rand(2, 3, side, side),)), path)


def _torch_save(payload: Callable[[nn.Module], Any]) -> Callable[[nn.Module, Path, str], None]:
    return lambda network, path, _name: torch.save(payload(network), path)


KINDS: Mapping[str, tuple[str, Callable[[nn.Module, Path, str], None], dict[str, Any]]] = {
    "own": ("t.pt", _save_own, {}),
    "state dict": ("t.pt", _torch_save(lambda network: network.state_dict()), {}),
    "half": (
        "t.pt",
        _torch_save(lambda network: {name: _halved(value) for name, value in network.state_dict().items()}),
        {},
    ),
    "parallel": ("t.pt", _torch_save(lambda network: {"model": _with_prefix(network, "module._orig_mod.")}), {}),
    "Lightning": ("t.ckpt", _torch_save(_lightning), {}),
    "timm": ("t.pth.tar", _torch_save(_timm), {}),
    "safetensors": ("t.safetensors", _save_safetensors, {}),
    "pickled": ("t.pt", _torch_save(lambda network: network), {}),
    "pickled, trusted": ("t.pt", _torch_save(lambda network: network), {"trust_pickle": True}),
    "TorchScript, trusted": ("t.pt", _save_traced, {"trust_pickle": True}),
    ".pt2, trusted": ("t.pt2", _save_exported, {"trust_pickle": True}),
}
"""File name, how it is saved, and the options that it is read with."""
NEEDS_TRACING = ("TorchScript, trusted", ".pt2, trusted")


def _halved(value: Tensor) -> Tensor:
    """float16, channels last where there are four dimensions."""
    half = value.half() if value.is_floating_point() else value
    return half.to(memory_format=torch.channels_last) if half.ndim == 4 else half


def smallest_side(name: str) -> int:
    """Pixels of a square image that the architecture takes, and that is quick."""
    entry = ARCHITECTURES[name]
    return entry.only_size or SMALLEST.get(entry.family, 32)


def try_files(name: str, folder: Path) -> dict[str, str]:
    """By kind of file "works", or why it does not."""
    side = smallest_side(name)
    network = fresh(name)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network((images - 0.5) / 0.25)
    found = {}
    for kind, (file, save, options) in KINDS.items():
        if kind in NEEDS_TRACING and name not in TRACED:
            continue
        path = folder / file
        save(network, path, name)
        try:
            source = read_teacher(path, overrides={**NORMALISED, "input_size": side}, **options)
            found[kind] = _same_answers(source, images, expected, 1e-2 if kind == "half" else 1e-4)
        except CompressError as refused:
            found[kind] = f"refused: {refused}".replace(str(folder), "")
        except Exception as error:  # a row says what happened, whatever it was
            found[kind] = f"failed: {type(error).__name__}: {str(error)[:200]}"
        path.unlink()
    return found


def _same_answers(source: TeacherSource, images: Tensor, expected: Tensor, tolerance: float) -> str:
    assert source.card is not None
    teacher = load_teacher(source.state_dict, source.card)
    with torch.no_grad():
        error = float((teacher(images).logits - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    return "works" if error <= tolerance else f"other answers, by {error:.1e}"


def fresh(name: str) -> nn.Module:
    """The architecture with random weights, in evaluation mode.

    Its batch norms have seen images, so that nothing grows from layer to layer, and its last layer is not the zeros
    that torchvision's ViT begins with, since equal answers of zero would say nothing.
    """
    torch.manual_seed(0)
    network = build_network(name, NUM_CLASSES)
    last = network.get_submodule(ARCHITECTURES[name].classifier_layer)
    assert isinstance(last, nn.Linear | nn.Conv2d)
    if not last.weight.any():
        nn.init.normal_(last.weight, std=0.02)
    norms = [layer for layer in network.eval().modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # a plain mean
    # From larger images than the steps use: of a last map with one position the variance would be that of a few
    # numbers, by which answers and rounding errors grow without bound.
    side = ARCHITECTURES[name].only_size or max(96, smallest_side(name))
    with torch.no_grad():
        network(torch.randn(8, 3, side, side))
    return network.eval()


# --- The way of a run ------------------------------------------------------------------------------------------------


def try_ways(name: str, folder: Path) -> dict[str, Any]:
    """By step "works", or why it does not; ends with the first that does not."""
    side = smallest_side(name)
    path = folder / "t.pt"
    torch.save(fresh(name).state_dict(), path)
    found: dict[str, Any] = {"side": side}
    step = "inspect"
    try:
        named = inspect_checkpoint(path).architectures
        found[step] = "works" if named == (name,) else f"named {named}"
        step = "distil"
        source = read_teacher(path, overrides={**NORMALISED, "input_size": side})
        assert source.card is not None
        teacher = load_teacher(source.state_dict, source.card)
        identity = checked_identity(teacher, None)
        images = (torch.rand(8, 3, side, side) * 255).to(torch.uint8)
        for method_name in METHODS[teacher.task]:
            method = load_method(method_name)
            settings = {
                field: value
                for field in method.Config.model_fields
                for ending, value in SETTINGS.items()
                if field.endswith(ending)
            }
            body = named_backbone("cifar_resnet8" if teacher.task == "classification" else "unet8", 3, 0.5)
            (folder / method_name).mkdir()
            student = method.distill(
                teacher,
                body,
                TrainingImages(images, images),
                method.Config(**settings),
                Context(folder / method_name),
            ).student.eval()
        found |= {step: "works", "identity_error": identity}
        step = "export"
        networks: dict[str, nn.Module] = {"teacher": Classifier(teacher).eval(), "student": student}
        files = {
            which: onnx_from_torch(model, (3, side, side), folder / f"{which}.onnx", opset_ceiling=OPSET, metadata={})
            for which, model in networks.items()
        }
        found[step] = "works"
        step = "parity"
        batch = torch.rand(2, 3, side, side).numpy()
        for which, model in networks.items():
            with torch.no_grad():
                spread = model(torch.from_numpy(batch)).std()
            if not 0 < spread < float("inf"):  # NaN as well
                raise ValueError(f"the answers of the {which} say nothing: their deviation is {spread}")
        for which, model in networks.items():
            with TorchRunner(model) as reference, OnnxRunner(files[which].path) as candidate:
                found[f"{which}_max_rel"] = check_parity(reference, candidate, [batch]).max_rel
        found[step] = "works"
    except ToolError as refused:
        found[step] = f"refused: {refused}".replace(str(folder), "")
    except Exception as error:  # a row says what happened, whatever it was
        found[step] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    return found


STEPS = ("inspect", "distil", "export", "parity")


def passes(row: Mapping[str, Any]) -> bool:
    """Whether all four steps work."""
    return all(row.get(step) == "works" for step in STEPS)


# --- Rows and page ---------------------------------------------------------------------------------------------------


def rows(what: str) -> dict[str, dict[str, Any]]:
    """The rows of one part of this program, by architecture; of two, the later."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return {row["architecture"]: row for row in found if row["what"] == what}


def classifiers_of_torchvision() -> tuple[str, ...]:
    return tuple(models.list_models(module=models))


def measure(what: str, only: list[str], repeat: bool) -> None:
    attempt = {"files": try_files, "ways": try_ways}[what]
    # Torchvision's classifiers and small ones first, so that a program that is stopped has seen most architectures.
    theirs = classifiers_of_torchvision()
    names = only or sorted(teacher_architectures(), key=lambda name: (name not in theirs, _num_values(name)))
    for name in names:
        if name in rows(what) and not repeat:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = attempt(name, Path(folder))
        seconds = round(time.perf_counter() - started, 1)
        append_row(RESULTS, {"what": what, "architecture": name, **found, "seconds": seconds, **provenance()})
        print(f"{name}: {found} in {seconds} s", flush=True)


def _num_values(name: str) -> int:
    return sum(int(np.prod(form.shape)) for form in expected_forms(name, NUM_CLASSES, 3, 1.0).values())


def write_page() -> None:
    write_between(PAGE, "<!-- files -->", "<!-- /files -->", files_table())
    write_between(PAGE, "<!-- ways -->", "<!-- /ways -->", ways_table())


def files_table() -> str:
    """Architectures times kinds of file."""
    found = rows("files")
    reasons: list[str] = []
    lines = [f"| | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    counted = {"works": 0, "refused": 0, "other": 0}
    for name in sorted(found):
        cells = []
        for kind in KINDS:
            said = found[name].get(kind)
            if said is None:
                cells.append("")
                continue
            sort = said if said == "works" else "refused" if said.startswith("refused") else "other"
            counted[sort] += 1
            if said == "works":
                cells.append("works")
                continue
            reason = _general(said, name)
            if reason not in reasons:
                reasons.append(reason)
            cells.append(f"{sort} ({reasons.index(reason) + 1})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    notes = [f"{index}. {reason}" for index, reason in enumerate(reasons, start=1)]
    summary = (
        f"{len(found)} architectures, {sum(counted.values())} files: {counted['works']} work, {counted['refused']} are "
        f"refused, {counted['other']} give something else. An empty cell was not tried."
    )
    return "\n".join([summary, "", *lines, "", *notes])


def _general(said: str, name: str) -> str:
    """A refusal without what differs between architectures."""
    text = said.replace(name, "NAME")
    return re.sub(r"it imports [^:]*?\. ", "it imports its classes. ", text)


def ways_table() -> str:
    """The four steps, architecture by architecture."""
    found, theirs = rows("ways"), classifiers_of_torchvision()
    lines = [
        "| | pixels | inspect | distil | export | parity | largest relative error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(found):
        row = found[name]
        cells = [row.get(step, "") for step in STEPS]
        error = f"{row['teacher_max_rel']:.0e}" if "teacher_max_rel" in row else ""
        lines.append(f"| {name} | {row['side']} | {' | '.join(cells)} | {error} |")
    tried = [name for name in theirs if name in found]
    passed = [name for name in tried if passes(found[name])]
    missing = [name for name in theirs if name not in found]
    summary = (
        f"Of torchvision's {len(theirs)} classifiers {len(tried)} were tried and {len(passed)} "
        f"({len(passed) / len(theirs):.0%} of all) went through all four."
    )
    if missing:
        summary += f" Not tried yet: {', '.join(missing)}."
    return "\n".join([summary, "", *lines])


def write_forms() -> None:
    """The table by which weights are recognised; rows of timm's networks stay as they are where it is not installed."""
    known = known_forms()
    names = [*teacher_architectures(), *(name for name in RECOGNISED if is_architecture(name) or name in known)]
    TABLE.write_text(written_forms({n: computed_form(n) if is_architecture(n) else known[n] for n in names}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("files", "ways", "page", "forms"))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=teacher_architectures())
    parser.add_argument("--repeat", action="store_true", help="measure what has a row as well")
    options = parser.parse_args()
    if options.what == "page":
        write_page()
    elif options.what == "forms":
        write_forms()
    else:
        measure(options.what, options.only, options.repeat)


if __name__ == "__main__":
    main()

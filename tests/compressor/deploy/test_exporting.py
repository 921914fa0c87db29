"""`compress export` on ONNX files of ours and of others, through the command line."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_dense
import tiny_networks
import tiny_onnx
import torch
from full_disk import file_size_limit
from onnx import TensorProto, helper
from PIL import Image
from tiny_run import Compress, failing, refused

from compressor.cli import invoke
from compressor.deploy import export_inputs, exporting
from compressor.deploy.board_results import StaleResult
from compressor.deploy.export_folder import earlier_export
from compressor.deploy.exporting import merge_into_export
from compressor.deploy.latencies import Timing
from compressor.errors import UsageFault
from compressor.report.export_schema import read_export
from compressor.stages import create_run_folder
from exporters.logits import onnx_logits
from exporters.onnx_files import load_onnx
from exporters.torch_to_onnx import onnx_from_torch
from profiles.board_result import content_digest

SIDE, CLASSES = 12, 3


@pytest.fixture(scope="module", autouse=True)
def _in_a_hurry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "TIMING", Timing(warmup_s=0.01, window_s=0.01, max_s=0.3))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx and images/, forty smooth pictures in one folder for each class that the model sees."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, CLASSES)),
    ).eval()
    onnx_from_torch(network, (3, SIDE, SIDE), folder / "model.onnx", opset_ceiling=20, metadata={})
    draw = torch.rand(40, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    pixels = (torch.nn.functional.interpolate(draw, (SIDE, SIDE), mode="bilinear") * 255).round().to(torch.uint8)
    with torch.no_grad():
        classes = network(pixels.float() / 255).argmax(dim=1).tolist()
    for index, (image, label) in enumerate(zip(pixels, classes, strict=True)):
        path = folder / "images" / str(label) / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def jetson(folder: Path) -> Path:
    """A finished export for a Jetson; not to be written to."""
    out = folder / "jetson"
    assert invoke(words(folder, out, "--target", "jetson", "--max-latency-ms", "4", "--quiet")) == 0
    return out


def exported(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "export.json").read_text())
    return content


def words(folder: Path, out: Path, *more: str, source: Path | None = None) -> tuple[str, ...]:
    source = source or folder / "model.onnx"
    return ("export", "--from", f"{source}", "--samples", f"{folder}/images", "--out", f"{out}", *more)


def test_an_export_for_a_jetson_has_every_precision_and_a_kit(folder: Path, tmp_path: Path, compress: Compress) -> None:
    out = tmp_path / "out"
    outcome = compress(*words(folder, out, "--target", "jetson", "--eval", f"{folder}/images", "--json"))
    assert outcome.code == 0, outcome.err
    (line,) = outcome.out.splitlines()
    assert json.loads(line) == exported(out)
    found = exported(out)
    assert [(v["precision"], v["path"]) for v in found["variants"]] == [
        ("fp32", "onnx/student.onnx"),
        ("fp16", "precision/student.fp16.onnx"),
        ("int8", "precision/student.int8.onnx"),
    ]
    assert all((out / v["path"]).is_file() for v in found["variants"])
    assert found["variants"][1]["agreement_with_fp32"]["eval"]["n"] == 40
    assert (found["num_calibration"], found["num_evidence"]) == (28, 12)
    assert (found["source"]["input_name"], found["source"]["image_shape"]) == ("image", [3, SIDE, SIDE])
    assert found["int8"][0]["generator_note"].startswith("An export alone has no generator")
    assert (out / found["kit"]["path"]).is_file()
    assert found["recommendation"]["precision"] in ("fp16", "fp32")

    again = compress(*words(folder, out, "--precisions", "fp32,fp16", "--target", "cpu"))
    assert again.code == 0, again.err
    assert [v["precision"] for v in exported(out)["variants"]] == ["fp32", "fp16"]
    assert exported(out)["kit"] is None
    assert "recommended" in again.out
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.onnx")}
    assert left == {"onnx/student.onnx", "precision/student.fp16.onnx"}


def test_a_segmenter_is_exported_like_a_classifier(folder: Path, tmp_path: Path, compress: Compress) -> None:
    source, out = tiny_dense.segmenter(tmp_path / "dense.onnx"), tmp_path / "out"
    outcome = compress(*words(folder, out, "--target", "jetson", "--eval", f"{folder}/images", source=source))
    assert outcome.code == 0, outcome.err
    assert "agreement of pixels on 40 --eval images" in " ".join(outcome.out.split())
    found = exported(out)
    assert (found["source"]["num_classes"], found["source"]["output_size"]) == (5, [12, 16])
    fp16, int8 = found["variants"][1:]
    agreement = fp16["agreement_with_fp32"]["eval"]
    assert (agreement["of"], agreement["n"]) == ("pixels", 40)
    assert 0.9 < agreement["low"] < agreement["high"]
    assert agreement["value"] > 0.99
    assert int8["mean_iou"]["eval"]["of"] == "overlap"
    assert (out / found["kit"]["path"]).is_file()


def test_masks_judge_a_segmenter_too(tmp_path: Path, compress: Compress) -> None:
    """Masks that are the model's own maps: fp32 is right everywhere."""
    source, few = tiny_dense.segmenter(tmp_path / "dense.onnx"), tmp_path / "few"
    draw = np.random.default_rng(0).integers(0, 256, (24, 4, 6, 3), dtype=np.uint8)
    for folder in ("images", "masks"):
        (few / folder).mkdir(parents=True)
    for index, small in enumerate(draw):
        image = Image.fromarray(small).resize((16, 12), Image.Resampling.BILINEAR)
        image.save(few / "images" / f"{index:02d}.png")
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        classes = onnx_logits(source, pixels).argmax(axis=1)[0].astype(np.uint8)
        Image.fromarray(classes).save(few / "masks" / f"{index:02d}.png")
    words = ("export", "--from", f"{source}", "--samples", f"{few}", "--out", f"{tmp_path}/out")
    outcome = compress(*words, "--target", "cpu", "--precisions", "fp32,fp16")
    assert outcome.code == 0, outcome.err
    fp32 = exported(tmp_path / "out")["variants"][0]
    assert (fp32["accuracy"]["evidence"]["value"], fp32["mean_iou_masks"]["evidence"]["value"]) == (1.0, 1.0)
    assert "fp32: mean IoU with the masks of 7 images 100 %" in outcome.err + outcome.out


def test_a_foreign_file_with_other_names_and_a_fixed_batch(folder: Path, tmp_path: Path, compress: Compress) -> None:
    proto = load_onnx(folder / "model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    text = {"image": "data_0", "logits": "prob_1"}
    for node in proto.graph.node:
        node.input[:] = [text.get(name, name) for name in node.input]
        node.output[:] = [text.get(name, name) for name in node.output]
    proto.graph.input[0].name, proto.graph.output[0].name = "data_0", "prob_1"
    del proto.graph.value_info[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    outcome = compress(*words(folder, tmp_path / "out", "--quiet", source=tmp_path / "foreign.onnx"))
    assert outcome.code == 0, outcome.err
    found = exported(tmp_path / "out")
    assert (found["source"]["input_name"], found["source"]["fixed_batch"]) == ("data_0", 2)
    assert found["source"]["sha256"] == hashlib.sha256((tmp_path / "foreign.onnx").read_bytes()).hexdigest()
    assert {v["precision"]: v["latency_host"]["batch_size"] for v in found["variants"]} == {
        "fp32": 2,
        "fp16": 2,
        "int8": 2,
    }


def test_a_normalisation_outside_goes_into_every_file(folder: Path, tmp_path: Path, compress: Compress) -> None:
    """What the kit's README and its golden outputs say is then true: images in [0, 1]."""
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    flags = ("--mean", "0.5,0.4,0.3", "--std", "0.25,0.2,0.1", "--target", "jetson")
    outcome = compress(*words(folder, tmp_path / "out", *flags))
    assert outcome.code == 0, outcome.err
    found = exported(tmp_path / "out")
    assert (tuple(found["source"]["mean"]), tuple(found["source"]["std"])) == (mean, std)
    golden = tmp_path / "out/kit/kit/golden"
    images = np.concatenate([np.fromfile(path, np.float32) for path in sorted(golden.glob("image-*.bin"))])
    images = images.reshape(-1, 3, SIDE, SIDE)
    assert 0 <= images.min() <= images.max() <= 1
    outside = (images - np.float32(mean).reshape(1, 3, 1, 1)) / np.float32(std).reshape(1, 3, 1, 1)
    wanted = onnx_logits(folder / "model.onnx", outside)
    for variant, bound in zip(found["variants"], (1e-5, 0.01, 0.2), strict=True):
        logits = onnx_logits(tmp_path / "out" / variant["path"], images, optimise=False)
        expected = np.fromfile(golden / f"student.{variant['precision']}.bin", np.float32).reshape(wanted.shape)
        for what in (logits, expected):
            assert np.abs(what - wanted).max() <= bound * np.abs(wanted).max(), variant["precision"]


def test_an_old_opset_costs_int8_alone_and_what_the_device_lowers_is_not_judged(
    folder: Path, tmp_path: Path, compress: Compress
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1600, 3)
    )
    onnx_from_torch(network.eval(), (3, SIDE, SIDE), tmp_path / "old.onnx", opset_ceiling=12, metadata={})
    outcome = compress(*words(folder, tmp_path / "out", "--target", "jetson", source=tmp_path / "old.onnx"))
    assert outcome.code == 0, outcome.err
    found = {variant["precision"]: variant for variant in exported(tmp_path / "out")["variants"]}
    assert found["int8"]["path"] is None
    assert found["int8"]["note"].startswith("not made: ")
    outcome = compress(*words(folder, tmp_path / "nano", "--target", "jetson-nano", source=tmp_path / "old.onnx"))
    assert outcome.code == 0, outcome.err
    found = {variant["precision"]: variant for variant in exported(tmp_path / "nano")["variants"]}
    assert found["fp16"]["path"] == found["fp32"]["path"] == "onnx/student.onnx"
    assert found["fp32"]["agreement_with_fp32"]["evidence"]["n"] == 12
    assert found["fp16"]["agreement_with_fp32"]["evidence"] is None


def test_what_is_said_of_the_images_is_true_of_an_export(folder: Path, tmp_path: Path, compress: Compress) -> None:
    pictures = sorted((folder / "images").rglob("*.png"))
    for index, path in enumerate([*pictures, pictures[0]]):
        copy = tmp_path / "few" / ("cats" if index % 2 else "1") / f"{index:02d}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    flags = ("--samples", f"{tmp_path}/few", "--precisions", "fp32", "--json")
    outcome = compress(*words(folder, tmp_path / "out", *flags))
    assert outcome.code == 0, outcome.err
    found = exported(tmp_path / "out")
    assert [warning for warning in found["warnings"] if "older" in warning] == [
        "Folders are not taken as classes, since an ONNX file does not name its own, so no accuracy is shown."
    ]
    assert "teacher" not in json.dumps([found["warnings"], found["skipped"]])
    (skipped,) = found["skipped"]
    assert skipped["reason"].startswith("it looks to the model exactly like ")
    assert found["variants"][0]["accuracy"] == {"evidence": None, "eval": None}

    shutil.rmtree(tmp_path / "few" / "cats")
    for path in [*(tmp_path / "few" / "1").iterdir()][1:]:
        path.unlink()
    more = compress(*words(folder, tmp_path / "more", "--eval", f"{tmp_path}/few"))
    refused(more, 4, "holds 1 image that can be used", "the model's own task", "given to --eval")


def two_inputs(path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 8, 8]) for name in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "two", values, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--max-latency-ms", "0"), 2, "--max-latency-ms is 0."),
        (("--max-size-mib", "nan"), 2, "--max-size-mib is nan."),
        (("--target", "jetsn"), 2, "jetsn"),
        (("--target", "jetson-nano"), 2, "is written in opset 20"),
        (("--target", "jetson-nano", "--precisions", "int8"), 2, "--precisions has int8"),
        (("--mean", "0.5"), 2, "Only one of --mean and --std"),
        (("--mean", "0.5", "--std", "0"), 2, "--std 0 is not a list of numbers"),
        (("--mean", "0.5", "--std", "1"), 2, "takes images of 3 channels"),
        (("--eval", "/nowhere"), 4, "--eval"),
    ],
)
def test_refusals(
    more: tuple[str, ...], code: int, said: str, folder: Path, tmp_path: Path, compress: Compress
) -> None:
    refused(compress(*words(folder, tmp_path / "out", *more)), code, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "truncated", "no model", "two inputs"])
def test_a_file_that_is_no_classifier(kind: str, folder: Path, tmp_path: Path, compress: Compress) -> None:
    source = tmp_path / "model.onnx"
    if kind == "truncated":
        source.write_bytes((folder / "model.onnx").read_bytes()[:-50])
    elif kind == "no model":
        source.write_text("hello")
    elif kind == "two inputs":
        two_inputs(source)
    outcome = compress(*words(folder, tmp_path / "out", source=source))
    refused(outcome, 4, "model.onnx")
    assert not (tmp_path / "out").exists()


def save(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


def unrunnable(folder: Path, path: Path) -> Path:
    """Valid ONNX, but with an operator that nobody has a kernel for."""
    proto = load_onnx(folder / "model.onnx")
    node = next(node for node in proto.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Wobble", "nobody"
    proto.opset_import.append(helper.make_opsetid("nobody", 1))
    return save(proto, path)


def reshaped(folder: Path, path: Path, classes: int) -> Path:
    proto = load_onnx(folder / "model.onnx")
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    return save(proto, path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("onnx/nowhere.onnx", "cannot be read as ONNX"),
        ("precision/student.fp16.onnx", "tensors in 16-bit floats"),
        ("precision/student.int8.onnx", "is quantised already"),
    ],
)
def test_a_file_in_a_lower_precision_is_refused(
    name: str, said: str, jetson: Path, folder: Path, tmp_path: Path, compress: Compress
) -> None:
    refused(compress(*words(folder, tmp_path / "out", source=jetson / name)), 4, Path(name).name, said)
    assert not (tmp_path / "out").exists()


def test_a_file_that_nobody_can_run_is_refused(
    folder: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = unrunnable(folder, tmp_path / "odd.onnx")
    refused(compress(*words(folder, tmp_path / "out", source=source)), 4, "could not load", "Wobble")
    source = reshaped(folder, tmp_path / "one.onnx", 1)
    refused(compress(*words(folder, tmp_path / "out", source=source)), 4, "gives 1 numbers", "two classes")
    source = tiny_onnx.write(tmp_path / "many.onnx", batch=2_000_000)
    refused(compress(*words(folder, tmp_path / "out", source=source)), 4, "2000000 images in one call", "268,435,456")
    source = tiny_networks.write(tmp_path / "dense.onnx", "onnx", tiny_networks.network(outputs=256, dense=True))
    refused(compress(*words(folder, tmp_path / "out", source=source)), 4, "256 classes to each pixel", "At most 255")
    monkeypatch.setattr(export_inputs, "TRIED_WITHIN_S", 0.5)
    source = tiny_networks.endless_onnx(tmp_path / "endless.onnx")
    refused(compress(*words(folder, tmp_path / "out", source=source)), 4, "endless.onnx was not through", "Loop")
    assert not (tmp_path / "out").exists()


# ---- the folder -------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_folder_that_is_not_ours_is_left_alone(folder: Path, tmp_path: Path, compress: Compress) -> None:
    (tmp_path / "precision").mkdir()
    (tmp_path / "precision" / "thesis.txt").write_text("mine")
    assert compress(*words(folder, tmp_path)).code == 2
    assert (tmp_path / "precision" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("held", ["config.yaml", "report.json", "onnx/student.onnx"])
def test_a_run_is_left_alone(held: str, folder: Path, tmp_path: Path, compress: Compress) -> None:
    out = tmp_path / "run"
    create_run_folder(out)
    (out / held).parent.mkdir(exist_ok=True)
    (out / held).write_text("a run's")
    before = content(out)
    refused(compress(*words(folder, out)), 2, str(out), held.partition("/")[0], "--out")
    assert content(out) == before


def test_an_export_that_fails_leaves_the_earlier_one(
    jetson: Path, folder: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(jetson, out)
    before = content(out)
    refused(compress(*words(folder, out, source=unrunnable(folder, tmp_path / "odd.onnx"))), 4, "Wobble")
    assert content(out) == before

    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "make_kit", lambda *_, **__: failing(full)())
        outcome = compress(*words(folder, out, "--target", "jetson"))
    refused(outcome, 2, f"The folder {out} cannot be written: No space left on device", "--out")
    assert content(out) == before

    # In the middle of moving in: the new onnx/ is in place, the new precision/ is not.
    rename = Path.rename

    def stuck(self: Path, target: Path) -> Path:
        if self.parent.name == ".new" and self.name == "precision":
            raise full
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stuck)
        refused(compress(*words(folder, out, "--precisions", "fp32")), 2, "No space left")
    assert content(out) == before
    assert compress(*words(folder, out, "--precisions", "fp32")).code == 0
    assert content(out) != before


@pytest.mark.parametrize("moved", range(7))
def test_a_move_that_was_killed_is_undone(moved: int, jetson: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(jetson, out)
    (out / "merged").mkdir()
    (out / "merged" / "jetson.json").write_text("sent")
    before = content(out)
    for part in ("onnx", "precision", "kit"):
        (out / ".new" / part).mkdir(parents=True)
        (out / ".new" / part / "new").write_text("new")
    (out / ".new" / "facts.json").write_text("new")
    (out / ".old").mkdir()
    leaving = ["export.json", "facts.json", "kit", "precision", "onnx", "merged"]
    if moved == 6:  # all have left, and two of the new parts have arrived
        for name in leaving:
            (out / name).rename(out / ".old" / name)
        for name in ("onnx", "precision"):
            (out / ".new" / name).rename(out / name)
    else:
        for name in leaving[:moved]:
            (out / name).rename(out / ".old" / name)
    with earlier_export(out):
        pass
    shutil.rmtree(out / ".new")
    assert content(out) == before


def test_a_first_export_that_was_killed_can_be_made_again(folder: Path, tmp_path: Path, compress: Compress) -> None:
    out = tmp_path / "out"
    create_run_folder(out)
    (out / "onnx").mkdir()
    (out / ".new" / "precision").mkdir(parents=True)
    assert compress(*words(folder, out, "--precisions", "fp32")).code == 0
    assert not list(out.glob(".new")) + list(out.glob(".old"))


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path, compress: Compress) -> None:
    (tmp_path / "file").write_text("")
    refused(compress(*words(folder, tmp_path / "file" / "out")), 2, "cannot be written: Not a directory")
    with file_size_limit(4096):
        outcome = compress(*words(folder, tmp_path / "out"))
    refused(outcome, 2, "cannot be written: File too large")
    assert not (tmp_path / "out" / ".new").exists()


# ---- what the device sends back ---------------------------------------------------------------------------------


def board_result(out: Path, path: Path, **changes: Any) -> Path:
    """A result.json of the export's kit, with fp16 measured and int8 failed."""
    export = exported(out)
    half, eight = export["variants"][1:]
    latency = {
        "p50_ms": 1.5,
        "p90_ms": 1.6,
        "p99_ms": 2.0,
        "mean_ms": 1.5,
        "count": 6500,
        "batch_size": 1,
        "throughput_ips": 650.0,
        "what": "gpu compute",
    }
    models = [
        {
            "name": "student",
            "precision": one["precision"],
            "file": f"models/{Path(one['path']).name}",
            "sha256": one["sha256"],
            "status": "ok",
            "reason": None,
            "build_s": 42.0,
            "engine_bytes": 10**6,
            "parity": {"count": 8, "max_abs": 0.01, "max_rel": 0.002, "top1_agreement": 1.0},
            "latency": latency,
            "warnings": [],
        }
        for one in (half, eight)
    ]
    models[1] |= {"status": "failed", "reason": "No tactic.", "parity": None, "latency": None}
    result = {
        "schema_version": "1.0",
        "kit_sha256": export["kit"]["sha256"],
        "target": export["target"]["profile"],
        "simulated": False,
        "mismatches": [],
        "started": "2026-11-20T12:00:00Z",
        "board": {
            "model": "Jetson Orin Nano",
            "jetpack": "6.2",
            "l4t": "36.4.3",
            "os": "Ubuntu 22.04.5 LTS",
            "architecture": "aarch64",
            "cpu": None,
            "power_mode": "MAXN_SUPER",
            "clocks": {},
            "clocks_locked": True,
        },
        "runtime": {"name": "tensorrt", "version": "10.3.0"},
        "models": models,
        **changes,
        "digest": "0" * 64,
    }
    text = json.dumps(result, indent=2).encode()
    path.write_bytes(text.replace(b"0" * 64, content_digest(text).encode()))
    return path


def test_a_result_from_the_device_is_merged(jetson: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(jetson, out)
    before = exported(out)
    assert before["limits"] == {
        "max_drop": 1.0,
        "max_latency_ms": 4.0,
        "max_size_mib": None,
        "max_params_m": None,
        "accept_predicted": False,
        "wishes": [],
    }
    merged = merge_into_export(out, board_result(out, tmp_path / "result.json"))
    assert merged == read_export(out / "export.json")
    found = {variant.precision: variant for variant in merged.variants}
    latency = found["fp16"].latency_target
    assert latency is not None
    assert (latency.origin, latency.latency_p50_ms) == ("merged", 1.5)
    assert found["fp16"].parity_target is not None
    assert (found["int8"].latency_target, found["int8"].failed_on_target) == (None, "No tactic.")
    assert merged.recommendation is not None
    assert "1.50 ms on NVIDIA Jetson Orin Nano" in merged.recommendation.reason
    assert merged.target.reason == f"Not every artefact was measured on {merged.target.title}."
    # Everything that does not come from the device is as it was.
    after = exported(out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"created", "variants", "target", "recommendation", "verdicts"}

    again = merge_into_export(out, board_result(out, tmp_path / "result.json"))
    assert again.variants == merged.variants


def test_a_result_of_something_else_is_refused(jetson: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(jetson, out)
    before = content(out)
    with pytest.raises(StaleResult, match="it is of the kit aaaaaaaaaaaa"):
        merge_into_export(out, board_result(out, tmp_path / "r.json", kit_sha256="a" * 64))
    with pytest.raises(StaleResult, match="simulation"):
        merge_into_export(out, board_result(out, tmp_path / "r.json", simulated=True))
    assert content(out) == before

    result = board_result(out, tmp_path / "r.json")
    (out / "facts.json").write_text("{}")
    with pytest.raises(UsageFault, match="holds no finished export of this version"):
        merge_into_export(out, result)
    (out / "export.json").unlink()
    for place in (out, tmp_path / "nowhere"):
        with pytest.raises(UsageFault, match="holds no finished export of this version"):
            merge_into_export(place, result)
    assert not (out / "merged").exists()
    assert not (tmp_path / "nowhere").exists()

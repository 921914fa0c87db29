"""A class for each pixel: the interface, ranges, int8 and the kit of a segmenter, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_dense
from fake_board import run_kit, simulate_kit
from PIL import Image

from exporters import golden, int8_search
from exporters.device_kit import Kit, KitModel, write_kit
from exporters.golden import golden_patterns, golden_stride
from exporters.int8_search import Int8Choice, search_int8
from exporters.logits import onnx_logits
from exporters.onnx_files import ClassifierInterface, classifier_interface, load_onnx, save_onnx
from exporters.routes import route_for
from profiles.board_result import read_board_result
from profiles.catalogue import load_target

PIXELS = 12 * 16


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dense.segmenter(tmp_path_factory.mktemp("dense") / "dense.onnx")


def images(count: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((count, 3, 3, 4), dtype=np.float32)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)


def test_the_interface_knows_the_size_of_the_map(dense: Path) -> None:
    found = classifier_interface(load_onnx(dense))
    assert (found.num_classes, found.output_size, found.image_shape) == (5, (12, 16), (3, 12, 16))


def search(dense: Path, folder: Path) -> Int8Choice:
    return search_int8(
        dense,
        folder / "int8.onnx",
        form="onnxruntime",
        calibration_sets=[images(20)],
        judge=images(40, 1),
        max_drop=5.0,
    )


def test_int8_agrees_by_pixels_and_the_same_whether_the_reference_is_kept_or_not(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = search(dense, tmp_path)
    classes = onnx_logits(dense, images(40, 1)).argmax(axis=1)
    found = onnx_logits(tmp_path / "int8.onnx", images(40, 1)).argmax(axis=1)
    assert kept.agreement == pytest.approx((classes == found).mean())
    assert 0.95 < kept.agreement < 1.0
    monkeypatch.setattr(int8_search, "KEPT", 0)
    again = search(dense, tmp_path)
    assert again.file.sha256 == kept.file.sha256
    for one, other in zip(again.trials, kept.trials, strict=True):
        assert one.logit_error == pytest.approx(other.logit_error, rel=1e-4)
        assert one.agreement == pytest.approx(other.agreement, abs=1e-3)


# ---- the kit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "stride"), [((), 1), ((12, 16), 1), ((64, 64), 1), ((180, 240), 11), ((512, 512), 65), ((3, 4096 * 4), 13)]
)
def test_few_pixels_of_a_map_are_golden_and_not_all_of_one_column(size: tuple[int, ...], stride: int) -> None:
    found = golden_stride(ClassifierInterface("image", None, (3, 8, 8), "logits", 5, size))
    assert found == stride
    if size:
        pixels = np.arange(0, np.prod(size), found)
        assert len(pixels) <= golden.MAX_PIXELS
        assert len(np.unique(pixels % size[1])) == min(size[1], len(pixels))


def make_kit(dense: Path, target: str, folder: Path) -> Kit:
    profile = load_target(target)
    source = save_onnx(load_onnx(dense), folder / "source.onnx")
    route = route_for(profile, source.opset)
    models = [KitModel("student", "fp32", source.path, source.sha256)]
    return write_kit(
        folder / "kit", target=profile, route=route, models=models, golden_images=images(3), metadata={"tool": "test"}
    )


@pytest.fixture
def _strided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MAX_PIXELS", 30)  # of 192: every 7th


@pytest.mark.usefixtures("_strided")
def test_the_kit_holds_every_seventh_pixel_and_says_so(dense: Path, tmp_path: Path) -> None:
    kit = make_kit(dense, "cpu", tmp_path)
    manifest = json.loads((kit.folder / "manifest.json").read_text())
    assert (manifest["output_size"], manifest["golden"]["stride"]) == ([12, 16], 7)
    assert f"pixels\t{PIXELS}\t7\n" in (kit.folder / "plan.tsv").read_text()
    reference = np.fromfile(kit.folder / "golden/student.fp32.bin", "<f4").reshape(3, 5, 28)
    whole = onnx_logits(dense, images(3)).reshape(3, 5, PIXELS)
    np.testing.assert_allclose(reference, whole[:, :, ::7], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_strided")
def test_a_board_with_onnxruntime_compares_those(dense: Path, tmp_path: Path) -> None:
    kit = make_kit(dense, "raspberry-pi-5", tmp_path)
    done = run_kit(kit.folder, "--anyway", DURATION_S="0.3")
    result = read_board_result(kit.folder / "result.json")
    assert result.models[0].status == "ok", done.stdout + done.stderr
    parity = result.models[0].parity
    assert parity is not None
    assert (parity.count, parity.top1_agreement) == (3, 1.0)
    assert parity.max_rel < 1e-5

    golden_file = kit.folder / "golden/student.fp32.bin"
    golden_file.write_bytes((np.fromfile(golden_file, "<f4") * 2).tobytes())
    run_kit(kit.folder, "--anyway", DURATION_S="0.3")
    reason = read_board_result(kit.folder / "result.json").models[0].reason
    assert "Its outputs differ from the golden ones by 0.5 of the largest logit" in str(reason)


def trtexec_values(kit: Kit, folder: Path, *, moved: bool) -> None:
    """What trtexec would write for each call: all logits of the map, in its own JSON."""
    logits = onnx_logits(folder / "source.onnx", images(3))
    if moved:  # the class of every pixel of the first image, by less than the tolerance of the logits
        logits[0] = logits[0] * 0.999
        order = np.sort(logits[0], axis=0)
        logits[0] += np.where(logits[0] == order[-2], order[-1] - order[-2] + 1e-3, 0)
    for index, values in enumerate(logits):
        text = ", ".join(f"{value:.6g}" for value in values.ravel())
        (kit.folder / f"values-{index}.json").write_text(
            f'[\n  {{ "name" : "logits"\n  , "values" : [ {text} ]\n  }}\n]\n'
        )


@pytest.mark.usefixtures("_strided")
@pytest.mark.parametrize("moved", [False, True])
def test_a_board_with_tensorrt_compares_those(moved: bool, dense: Path, tmp_path: Path) -> None:
    kit = make_kit(dense, "jetson", tmp_path)
    trtexec_values(kit, tmp_path, moved=moved)
    done = simulate_kit(kit.folder, tmp_path, "10.3", TRTEXEC_VALUES=str(kit.folder))
    model = read_board_result(kit.folder / "result.json").models[0]
    reference = np.fromfile(kit.folder / "golden/student.fp32.bin", "<f4").reshape(3, 5, 28)
    if moved:
        given = json.loads((kit.folder / "values-0.json").read_text())[0]["values"]
        given = np.array(given).reshape(5, PIXELS)[:, ::7]
        difference = np.abs(given - reference[0]).max() / np.abs(reference).max()
        assert model.reason is not None
        assert f"differ from the golden ones by {difference:.3g} of the largest logit" in model.reason
    else:
        assert model.status == "ok", done.stdout + done.stderr
        assert model.parity is not None
        assert (model.parity.count, model.parity.top1_agreement) == (3, 1.0)
        assert model.parity.max_rel < 1e-5


def test_the_python_example_prints_shares_and_writes_the_map(dense: Path, tmp_path: Path) -> None:
    pixels = (golden_patterns(1, (3, 12, 16))[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    kit = make_kit(dense, "cpu", tmp_path)
    command = [sys.executable, "infer.py", "models/student.fp32.onnx", str(tmp_path / "photo.png")]
    done = subprocess.run(command, cwd=kit.folder, capture_output=True, text=True, check=True)
    image = np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1)[np.newaxis] / 255)
    classes = onnx_logits(dense, image)[0].argmax(axis=0)
    with Image.open(kit.folder / "classes.png") as written:
        np.testing.assert_array_equal(np.asarray(written), classes)
    shares = [(index, (classes == index).mean()) for index in np.unique(classes)]
    assert done.stdout.splitlines() == [f"class {index}, {share:.1%} of the pixels" for index, share in shares]

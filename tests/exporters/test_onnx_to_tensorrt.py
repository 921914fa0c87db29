"""Building engines. Tests marked `tensorrt` build with the real TensorRT-RTX, which proves that its parser and
builder take our graphs; they prove nothing about speed, nor about a Jetson."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from fake_tensorrt import ENGINE, FakeTensorRT, install
from onnx import helper
from torch import nn

from compressor.inputs.teacher import Classifier
from compressor.students.architectures import build_network
from compressor.students.prune import pruned_backbone
from compressor.students.student import classifier_sharing, own_classifier
from exporters import engine_card, tensorrt_backend
from exporters.calibration import collect_ranges
from exporters.engine_card import BatchProfile, EngineRefused, card_path, check_engine, read_card
from exporters.errors import ExportError
from exporters.onnx_files import OnnxFile
from exporters.onnx_to_fp16 import fp16_from_onnx
from exporters.onnx_to_int8 import int8_from_onnx
from exporters.onnx_to_tensorrt import EngineFile, engine_from_onnx
from exporters.parity import check_parity
from exporters.runners import OnnxRunner, TensorRTRunner
from exporters.tensorrt_backend import Backend, BackendName, GpuMissing, TensorRTMissing, load_backend, usable_gpu
from exporters.torch_to_onnx import onnx_from_torch
from profiles.schema import Precision


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


def build(source: Path, path: Path, backend: Backend | None = None, **options: Any) -> EngineFile:
    return engine_from_onnx(
        source,
        path,
        backend=backend or load_backend("tensorrt"),
        precision=options.pop("precision", "fp16"),
        rebuild="compress run --target l4",
        preprocessing={"size": "8x8", "range": "0 to 1"},
        **options,
    )


def assert_three_sentences(error: ExportError, received: str, action: str) -> None:
    assert all(sentence.endswith(".") for sentence in (error.received, error.expected, error.action))
    assert received in error.received
    assert action in error.action


def test_an_engine_and_its_card(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> None:
    built = build(exported.path, tmp_path / "student.engine", workspace_mib=256)
    assert (tmp_path / "student.engine").read_bytes() == ENGINE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student.engine", "student.engine.json"]
    assert built.num_layers == 7
    assert built.size_mib == len(ENGINE) / 2**20
    assert json.loads(card_path(built.path).read_text()) == {
        "card_version": 1,
        "backend": "tensorrt",
        "version": "10.13.3.9",
        "compute_capability": "8.9",
        "device": "NVIDIA L4",
        "cuda": "13.0",
        "system": platform.system(),
        "machine": platform.machine(),
        "precision": "fp16",
        "tf32": True,
        "batch": {"min": 1, "opt": 1, "max": 1},
        "preprocessing": {"size": "8x8", "range": "0 to 1"},
        "onnx_sha256": exported.sha256,
        "engine_sha256": built.card.engine_sha256,
        "engine_bytes": len(ENGINE),
        "rebuild": "compress run --target l4",
        "digest": built.card.computed_digest(),
    }
    assert check_engine(built.path) == built.card
    static = (1, 3, 8, 8)
    assert [call for call in trt.calls if call[0] != "add_optimization_profile"] == [
        ("create_network", 0b10),  # strongly typed
        ("parse", "Gemm"),
        ("set_memory_pool_limit", "workspace", 256 * 2**20),
        ("set_shape", "image", static, static, static),
        ("build",),
    ]
    assert trt.calls[-2][0] == "add_optimization_profile"


def test_tensorrt_11_knows_strongly_typed_networks_only(
    monkeypatch: pytest.MonkeyPatch, exported: OnnxFile, tmp_path: Path
) -> None:
    trt = install(monkeypatch, version="11.4.0.106")
    build(exported.path, tmp_path / "student.engine")
    assert trt.calls[0] == ("create_network", 0)


def test_a_dynamic_batch_and_true_fp32(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> None:
    batch = BatchProfile(min=1, opt=8, max=32)
    built = build(exported.path, tmp_path / "e", batch=batch, tf32=False)
    assert ("set_shape", "image", (1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8)) in trt.calls
    assert ("clear_flag", 7) in trt.calls
    assert not any(call[0] == "set_memory_pool_limit" for call in trt.calls)
    assert (built.card.batch, built.card.tf32) == (batch, False)
    assert str(batch) == "1 to 32, best at 8"
    with pytest.raises(ValueError, match="min <= opt <= max"):
        BatchProfile(min=4, opt=1, max=8)


def test_a_fixed_batch_stays(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> None:
    proto = onnx.load(exported.path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    fixed = tmp_path / "fixed.onnx"
    onnx.save(proto, fixed)
    with pytest.raises(ExportError) as caught:
        build(fixed, tmp_path / "e")
    assert_three_sentences(caught.value, "fixed.onnx takes 2 images a call", "Ask for a batch of 2")
    build(fixed, tmp_path / "e", batch=BatchProfile(min=2, opt=2, max=2))
    assert not any(call[0] == "set_shape" for call in trt.calls)


def test_the_timing_cache_belongs_to_version_device_and_capability(
    trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path
) -> None:
    folder = tmp_path / "caches"
    cache = folder / "tensorrt-10.13.3.9-NVIDIA_L4-sm8.9.cache"
    build(exported.path, tmp_path / "e", timing_cache_folder=folder)
    assert [path.name for path in folder.iterdir()] == [cache.name]
    assert ("create_timing_cache", b"") in trt.calls
    assert cache.read_bytes() == b"timings"

    build(exported.path, tmp_path / "e", timing_cache_folder=folder)
    assert ("set_timing_cache", b"timings", False) in trt.calls

    cache.write_bytes(b"damaged")
    trt.calls.clear()
    build(exported.path, tmp_path / "e", timing_cache_folder=folder)
    assert [call for call in trt.calls if "timing_cache" in call[0]] == [
        ("create_timing_cache", b"damaged"),
        ("create_timing_cache", b""),
        ("set_timing_cache", b"", False),
    ]


def test_a_graph_that_cannot_be_parsed(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> None:
    trt.parser_errors = [
        SimpleNamespace(
            node_name=lambda index=index: f"node {index}",
            node_operator=lambda: "Einsum",
            desc=lambda: "Assertion failed:\n ellipsis is not supported.",
        )
        for index in range(5)
    ]
    with pytest.raises(ExportError) as caught:
        build(exported.path, tmp_path / "e")
    assert_three_sentences(caught.value, "TensorRT 10.13.3.9 cannot parse student.onnx: ", "replace the nodes")
    assert "node 2 (Einsum): Assertion failed: ellipsis is not supported; and 2 more." in caught.value.received
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_cannot_be_built(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> None:
    trt.build_fails = True
    with pytest.raises(ExportError) as caught:
        build(exported.path, tmp_path / "e")
    assert caught.value.received == (
        "TensorRT 10.13.3.9 cannot build student.onnx: Could not find any implementation for node conv."
    )
    assert list(tmp_path.iterdir()) == []


def test_an_old_card_never_lies_beside_a_new_engine(
    trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e"
    build(exported.path, path)
    monkeypatch.setattr(engine_card, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        build(exported.path, path)
    assert [item.name for item in tmp_path.iterdir()] == ["e"]


def test_another_gpu_than_this_one(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> None:
    assert build(exported.path, tmp_path / "e", compute_capability="8.9").card.compute_capability == "8.9"
    with pytest.raises(ExportError) as caught:
        build(exported.path, tmp_path / "e", compute_capability="8.7")
    assert_three_sentences(caught.value, "for compute capability 8.7", "for a Jetson use the device kit")
    assert caught.value.expected == "Here it builds for 8.9."


def test_no_gpu(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(exported.path, tmp_path / "e")
    monkeypatch.setattr(tensorrt_backend, "usable_gpu", lambda: None)
    with pytest.raises(GpuMissing) as caught:
        build(exported.path, tmp_path / "e")
    assert_three_sentences(caught.value, "Building an engine with TensorRT 10.13.3.9 needs an NVIDIA GPU", "device kit")
    with pytest.raises(GpuMissing, match="Running e needs an NVIDIA GPU"):
        check_engine(tmp_path / "e")


def test_a_package_that_is_missing_broken_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_backend, "find_spec", lambda _name: None)
    with pytest.raises(TensorRTMissing) as caught:
        load_backend("tensorrt_rtx")
    assert_three_sentences(caught.value, "TensorRT-RTX is not installed", "pip install 'compress-edge[rtx]'")

    trt = install(monkeypatch, version="8.6.1")
    monkeypatch.setattr(tensorrt_backend, "find_spec", lambda _name: trt.__spec__)
    with pytest.raises(TensorRTMissing) as caught:
        load_backend("tensorrt")
    assert_three_sentences(caught.value, "TensorRT 8.6.1 is installed", "pip install 'compress-edge[tensorrt]'")

    def import_module(_name: str) -> None:
        raise ImportError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(tensorrt_backend, "import_module", import_module)
    with pytest.raises(TensorRTMissing) as caught:
        load_backend("tensorrt")
    assert_three_sentences(caught.value, "does not load: libnvinfer.so.11", "must reach pypi.nvidia.com")


@pytest.fixture
def engine(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> Path:
    return build(exported.path, tmp_path / "student.engine").path


def edit(path: Path, **changes: Any) -> None:
    card_path(path).write_text(json.dumps({**json.loads(card_path(path).read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "received", "action"),
    [
        (lambda path: card_path(path).unlink(), "its card student.engine.json cannot be read", "on this machine"),
        (lambda path: card_path(path).write_text("{}"), "is no card of ours (backend: Field required)", "Build the"),
        (lambda path: card_path(path).write_text("no JSON"), "is no card of ours (file: Invalid JSON", "Build the"),
        (lambda path: card_path(path).write_text(" " * (1 << 20) + "{}"), "is too large for a card", "Build the"),
        (lambda path: edit(path, compute_capability="8.7"), "was edited after it was written", "Build the"),
        (lambda path: edit(path, extra=1), "(extra: Extra inputs are not permitted)", "Build the"),
        (lambda path: path.write_bytes(ENGINE[:9]), "has 9 bytes and is not the engine", "compress run --target l4"),
        (lambda path: path.write_bytes(ENGINE[::-1]), "is not the engine that its card", "compress run --target l4"),
        (lambda path: path.unlink(), "cannot be read", "compress run --target l4"),
    ],
)
def test_files_that_were_damaged(engine: Path, damage: Callable[[Path], Any], received: str, action: str) -> None:
    damage(engine)
    with pytest.raises(EngineRefused) as caught:
        check_engine(engine)
    assert_three_sentences(caught.value, received, action)


@pytest.mark.parametrize(
    ("target", "name", "value", "sentences"),
    [
        (platform, "machine", lambda: "aarch64", ("built for Linux on x86_64.", "Here is Linux on aarch64.")),
        (
            tensorrt_backend,
            "usable_gpu",
            lambda: tensorrt_backend.Gpu("NVIDIA H200", "9.0", "13.0"),
            ("built for compute capability 8.9.", "Here is NVIDIA H200 with compute capability 9.0."),
        ),
    ],
)
def test_other_machines(
    engine: Path, monkeypatch: pytest.MonkeyPatch, target: Any, name: str, value: Any, sentences: tuple[str, str]
) -> None:
    edit(engine, system="Linux", machine="x86_64")
    edit(engine, digest=engine_card.EngineCard.model_validate_json(card_path(engine).read_bytes()).computed_digest())
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(target, name, value)
    with pytest.raises(EngineRefused) as caught:
        check_engine(engine)
    assert caught.value.received.endswith(sentences[0])
    assert caught.value.expected == sentences[1]
    assert caught.value.action == "Build it again on this machine: compress run --target l4."


# From here on the real thing.


@pytest.fixture(scope="module")
def rtx() -> Backend:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return load_backend("tensorrt_rtx")


def resnet() -> nn.Module:
    return Classifier(tiny.teacher("cifar_resnet18", width=0.25, image_shape=SHAPE))


def mobilenet_v2() -> nn.Module:
    return Classifier(tiny.teacher("mobilenet_v2", width=0.5, image_shape=SHAPE))


def mobilenet_v3_small() -> nn.Module:
    """As torchvision initialises it: its activations are so small that many int8 scales are no fp16 numbers."""
    return build_network("mobilenet_v3_small", 10).eval()


def pruned_resnet() -> nn.Module:
    teacher = tiny.teacher("cifar_resnet8", image_shape=SHAPE)
    return own_classifier(pruned_backbone(teacher, 0.5, channel_multiple=8), teacher).eval()


def classifier_sharing_student() -> nn.Module:
    """A backbone, a projector, and the classifier of a teacher of another family."""
    teacher = tiny.teacher("cifar_resnet18", width=0.25, image_shape=SHAPE)
    return classifier_sharing(tiny.backbone("mobilenet_v2"), teacher).eval()


SHAPE = (3, 32, 32)
NETWORKS = (resnet, mobilenet_v2, mobilenet_v3_small, pruned_resnet, classifier_sharing_student)


def precisions(source: Path) -> dict[str, Path]:
    """The typed files of a student, as a run makes them."""
    images = tiny.images(16, SHAPE).numpy().astype(np.float32) / np.float32(255)
    ranges = collect_ranges(source, [images]).min_max()
    files = {name: source.with_name(f"{name}.onnx") for name in ("fp16", "int8", "int8 and fp16")}
    fp16_from_onnx(source, files["fp16"])
    int8_from_onnx(source, files["int8"], ranges=ranges, form="tensorrt")
    fp16_from_onnx(files["int8"], files["int8 and fp16"])
    return {"fp32": source, **files}


@pytest.mark.slow
@pytest.mark.tensorrt
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_rtx_takes_our_graphs(rtx: Backend, tmp_path: Path, network: Callable[[], nn.Module]) -> None:
    source = onnx_from_torch(network(), SHAPE, tmp_path / "student.onnx", opset_ceiling=20, metadata={}).path
    sizes: dict[tuple[str, str], float] = {}
    for name, file in precisions(source).items():
        for target in ("8.6", "8.9"):
            precision: Precision = "int8" if "int8" in name else name  # type: ignore[assignment]
            path = tmp_path / f"{name} {target}.engine"
            built = build(file, path, rtx, precision=precision, compute_capability=target, workspace_mib=256)
            assert built.num_layers > 10
            assert read_card(path) == built.card
            assert (built.card.backend, built.card.compute_capability) == ("tensorrt_rtx", target)
            sizes[name, target] = built.size_mib
    for target in ("8.6", "8.9"):
        assert sizes["fp16", target] < sizes["fp32", target]


@pytest.mark.tensorrt
def test_rtx_names_the_node_that_it_cannot_parse(rtx: Backend, exported: OnnxFile, tmp_path: Path) -> None:
    proto = onnx.load(exported.path)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain, relu.name = "FancyActivation", "vendor", "my activation"
    proto.opset_import.append(helper.make_opsetid("vendor", 1))
    onnx.save(proto, tmp_path / "fancy.onnx")
    with pytest.raises(ExportError) as caught:
        build(tmp_path / "fancy.onnx", tmp_path / "e", rtx, compute_capability="8.6")
    assert_three_sentences(caught.value, f"{rtx} cannot parse fancy.onnx: ", "replace the nodes named above")
    assert "my activation (FancyActivation)" in caught.value.received
    assert not (tmp_path / "e").exists()


@pytest.mark.tensorrt
def test_rtx_builds_a_dynamic_batch_and_keeps_no_timing_cache(rtx: Backend, exported: OnnxFile, tmp_path: Path) -> None:
    batch = BatchProfile(min=1, opt=8, max=32)
    built = build(
        exported.path, tmp_path / "e", rtx, batch=batch, compute_capability="8.6", timing_cache_folder=tmp_path
    )
    assert built.card.batch == batch
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "e.json"]
    assert str(rtx).startswith("TensorRT-RTX 1.")
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= set(rtx.targets)
    assert "8.7" not in rtx.targets  # no Jetson


@pytest.mark.tensorrt
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_rtx_engines_neither_build_for_nor_run_on_a_missing_gpu(
    rtx: Backend, exported: OnnxFile, tmp_path: Path
) -> None:
    with pytest.raises(GpuMissing, match="needs an NVIDIA GPU"):
        build(exported.path, tmp_path / "e", rtx)
    built = build(exported.path, tmp_path / "e", rtx, compute_capability="8.9")
    assert (built.card.device, built.card.cuda) == (None, None)
    with pytest.raises(GpuMissing, match="Running e needs an NVIDIA GPU"):
        TensorRTRunner(built.path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_an_engine_computes_what_its_graph_computes(
    exported: OnnxFile, tmp_path: Path, name: BackendName, cuda_graph: bool
) -> None:
    if usable_gpu() is None:
        pytest.skip("no GPU")
    pytest.importorskip(name)
    batch = BatchProfile(min=1, opt=2, max=8)
    built = build(exported.path, tmp_path / "e", load_backend(name), precision="fp32", batch=batch, tf32=False)
    draw = np.random.default_rng(0)
    batches = [draw.random((count, 3, 8, 8), dtype=np.float32) for count in (1, 2, 7, 2)]
    with TensorRTRunner(built.path, cuda_graph=cuda_graph) as engine, OnnxRunner(exported.path) as reference:
        assert check_parity(reference, engine, batches).top1_agreement == 1.0

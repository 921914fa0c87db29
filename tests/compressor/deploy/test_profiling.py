"""`compress profile`: what it measures here, what it predicts, where it writes, and every refusal."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_tensorrt
import onnx
import pytest
import tiny_onnx
import torch
from onnx import TensorProto, helper

from compressor.deploy import profile_measured
from compressor.deploy.latencies import Timing
from compressor.deploy.profile_record import LatencyProfile, read_profile
from compressor.deploy.profile_sheet import profile_text
from compressor.deploy.profile_sources import precision_of, sources_of
from compressor.deploy.profiling import ProfileRequest, profile_request, profile_source
from compressor.deploy.variants import Variant
from compressor.errors import EnvironmentFault, InputRefused, UsageFault
from compressor.stage_files import save_facts
from exporters import tensorrt_backend
from exporters.engine_card import BatchProfile
from exporters.errors import ExportError
from exporters.onnx_files import load_onnx
from exporters.onnx_to_tensorrt import engine_from_onnx
from exporters.tensorrt_backend import load_backend
from profiles.errors import ProfileError
from profiles.host_speed import HostSpeed

SHORT = Timing(warmup_s=0.002, window_s=0.002, max_s=0.2)


@pytest.fixture(autouse=True)
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's peak is not measured here."""
    speed = HostSpeed.model_validate(
        {
            "host": "Some CPU, 2 cores",
            "measured_at": "2026-11-02T09:30:00Z",
            "fp32_gflops": 100.0,
            "fp32_by": "numpy",
            "copy_gb_s": 10.0,
            "copy_mib": 256.0,
            "copy_threads": 1,
        }
    )
    monkeypatch.setattr(profile_measured, "host_speed", lambda: speed)


def profile(source: Path, out: Path, **fields: Any) -> LatencyProfile:
    return profile_source(ProfileRequest(source, out=out, **fields), lambda _: None, SHORT)


def run_folder(folder: Path, made_for: str = "ONNX Runtime") -> Path:
    """What a run leaves of its student, in two precisions; a third was refused."""
    (folder / "precision").mkdir(parents=True)
    (folder / "onnx").mkdir()
    tiny_onnx.write(folder / "onnx" / "student.onnx")
    tiny_onnx.write(folder / "precision" / "student.fp16.onnx", precision="fp16")
    variants = [
        Variant("student", "fp32", "onnx/student.onnx", "ONNX Runtime"),
        Variant("student", "fp16", "precision/student.fp16.onnx", made_for),
        Variant("student", "int8", None, made_for, note="refused: too few images"),
    ]
    save_facts(folder / "precision", variants=[variant.to_dict() for variant in variants])
    return folder


def hard_swish(path: Path) -> Path:
    """The same file with the activation that TensorRT reads from 8.5 on."""
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "HardSwish"
    onnx.save(model, path)
    return path


# --- measuring --------------------------------------------------------------------------------------------------------


def test_a_file_is_measured_at_every_batch_size_with_its_layers_and_memory(tmp_path: Path) -> None:
    source, out = tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "out"
    made = profile(source, out, batches=(1, 4))
    assert read_profile(out / "profile.json") == made
    assert (made.schema_version, made.kind, made.target.name, made.target.this_host) == ("1.1", "onnx", "cpu", True)
    (file,) = made.files
    assert [stats.batch_size for stats in file.measured] == [1, 4]
    assert file.predicted == ()
    assert file.memory is not None
    assert (file.memory.batch_size, file.memory.threads) == (1, file.measured[0].threads)
    assert file.layers is not None
    assert {layer.module for layer in file.layers.layers} >= {"body.conv", "head"}
    assert any(layer.peak_share is not None for layer in file.layers.layers)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "CACHEDIR.TAG", "layers-m.png", "profile.json"]
    assert file.layers_picture == "layers-m.png"


def test_the_sheet_shows_the_numbers_with_units_and_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    made = profile(tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "out", batches=(1, 4))
    text = profile_text(made, "out")
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("file "))
    assert header.split("  ")[0] == "file"
    assert all(word in header for word in ("p50 ms", "95 % interval", "p99", "images/s", "threads", "memory"))
    assert "by ONNX Runtime's profile (batch 1" in text
    assert "picture: out/layers-m.png" in text
    assert "The peak is 100 GFLOP/s in fp32 with all cores, measured on Some CPU, 2 cores" in " ".join(text.split())
    assert max(map(len, lines)) <= 115
    unstable = made.files[0].measured[0].model_copy(update={"stable": False})
    restless = made.model_copy(update={"files": (made.files[0].model_copy(update={"measured": (unstable,)}),)})
    assert "! marks a measurement that did not settle" in profile_text(restless, "out")


def test_a_peak_that_others_took_part_of_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = profile_measured.host_speed().model_copy(update={"warnings": ("Other programs used the CPU.",)})
    monkeypatch.setattr(profile_measured, "host_speed", lambda: disturbed)
    made = profile(tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "out")
    assert made.host_speed is None
    assert made.files[0].layers is not None
    assert all(layer.peak_share is None for layer in made.files[0].layers.layers)


def test_of_a_run_every_file_is_measured_and_what_is_not_there_is_told(tmp_path: Path) -> None:
    made = profile(run_folder(tmp_path / "run"), tmp_path / "out", target="cpu", threads=1)
    assert [file.name for file in made.files] == ["student.fp32", "student.fp16"]
    assert all(len(file.measured) == 1 and file.measured[0].threads == 1 for file in made.files)
    assert made.notes == ("student.int8: refused: too few images",)
    assert (tmp_path / "out" / "layers-student.fp16.png").exists()


def test_files_made_for_tensorrt_are_not_timed_in_onnx_runtime(tmp_path: Path) -> None:
    made = profile(run_folder(tmp_path / "run", "TensorRT 10 and 11, typed"), tmp_path / "out")
    fp32, fp16 = made.files
    assert len(fp32.measured) == 1
    assert fp16.measured == ()
    assert "runs its types another way" in fp16.notes[0]


def test_layers_that_cannot_be_had_are_told_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise profile_measured.ExportError("ONNX Runtime gave no profile.", "One was expected.", "Try again.")

    monkeypatch.setattr(profile_measured, "onnx_layers", refuse)
    made = profile(tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "out")
    (file,) = made.files
    assert len(file.measured) == 1
    assert (file.layers, file.layers_picture) == (None, None)
    assert file.notes == ("No layers: ONNX Runtime gave no profile.",)


@pytest.mark.parametrize(
    ("problem", "batch", "blamed"),
    [
        ("The process that times m.onnx gave no answer.", 100_000_000, True),
        ("ONNX Runtime failed in m.onnx: Failed to allocate memory.", 100_000_000, True),
        ("ONNX Runtime failed in m.onnx: Failed to allocate memory.", 1, False),
        ("ONNX Runtime could not load m.onnx.", 100_000_000, False),
    ],
)
def test_a_batch_that_memory_does_not_hold_is_named_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, batch: int, blamed: bool
) -> None:
    def refuse(*_: object) -> None:
        cause = profile_measured.ChildFailed("it ended with code -9") if "no answer" in problem else None
        raise ExportError(problem, "It was expected to run.", "Check with `compress doctor`.") from cause

    monkeypatch.setattr(profile_measured, "measure_files", refuse)
    with pytest.raises(ExportError) as error:
        profile(tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "out", batches=(batch,))
    assert error.value.received == problem
    assert (error.value.action == "Give a smaller --batch.") == blamed
    named = "The batch of 100,000,000 is the likely cause: its images alone take 71.5 GiB of memory."
    assert (error.value.expected == named) == blamed


# --- predicting -------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_here_is_predicted_and_said_to_be(tmp_path: Path) -> None:
    source = tiny_onnx.write(tmp_path / "m.onnx")
    made = profile(source, tmp_path / "out", target="jetson", batches=(1, 8))
    assert [file.name for file in made.files] == ["m", "m, as fp16", "m, as int8"]
    assert [file.precision for file in made.files] == ["fp32", "fp16", "int8"]
    for file in made.files:
        assert (file.measured, file.memory, file.layers) == ((), None, None)
        assert [guess.batch_size for guess in file.predicted] == [1, 8]
        assert all(guess.origin == "predicted" for guess in file.predicted)
        assert {share.kind for share in file.kernels} >= {"convolution", "gemm"}
    assert made.host_speed is None
    assert made.notes[0] == f"Predicted, not measured: {made.target.title} is not this machine."
    assert f"`compress export --from {source} --samples ./images --target jetson` and run it" in made.notes[1]
    assert "--board" not in made.notes[1]
    text = profile_text(made, "out")
    assert "Predicted, not measured" in text
    assert text.count("predicted, ") >= 6
    assert " ~" in text


def test_what_does_not_fit_into_the_devices_memory_has_a_note_in_place_of_a_number(tmp_path: Path) -> None:
    source = tiny_onnx.write(tmp_path / "m.onnx")
    made = profile(source, tmp_path / "out", target="jetson", batches=(1, 4_000_000))
    fp32 = made.files[0]
    assert [[guess.batch_size for guess in file.predicted] for file in made.files] == [
        [1],
        [1, 4_000_000],
        [1, 4_000_000],
    ]
    # 3 x 8 x 8 values in and 8 x 8 x 8 out, in the convolution
    assert fp32.notes[0].startswith("Batch 4,000,000 has no latency in fp32: it needs at least 10.5 GiB for weights")
    assert fp32.notes[0].endswith(f"and {made.target.title} has 8 GiB.")
    nothing = profile(source, tmp_path / "out", target="jetson", batches=(100_000_000,))
    assert all(file.predicted == () and file.parts_ms == {} for file in nothing.files)
    assert "Batch 100,000,000 has no latency in int8" in profile_text(nothing, "out")


def test_a_target_is_said_as_it_was_typed(tmp_path: Path) -> None:
    source, board = tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "ok.yaml"
    board.write_text("extends: jetson\n")
    for target in (str(board), "jetson@15W", f"{board}@25W"):
        made = profile(source, tmp_path / "out", target=target)
        assert f"--target {target}`" in made.notes[1]
    slower = profile(source, tmp_path / "out", target="jetson@15W")
    assert slower.notes[-1].startswith(f"This replaced the profile of {source} on ok in mode 25W that was in ")
    assert profile_text(slower, "out").splitlines()[0].endswith(" in mode 15W")
    assert profile_text(slower, "out").splitlines()[0].count("15W") == 1
    plain = profile(source, tmp_path / "plain", target="jetson")
    assert profile_text(plain, "plain").splitlines()[0].endswith(", MAXN_SUPER")


def test_what_predictions_without_a_measurement_of_the_device_rest_on(tmp_path: Path) -> None:
    made = profile(tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "out", target="t4", batches=(1,))

    def basis(number: int, anchors: tuple[str, ...]) -> str:
        changed = {"num_measurements": number, "anchors": anchors}
        guesses = [(file, file.predicted[0].model_copy(update=changed)) for file in made.files]
        files = tuple(file.model_copy(update={"predicted": (guess,)}) for file, guess in guesses)
        return " ".join(profile_text(made.model_copy(update={"files": files}), "out").split())

    assert "rest on 2 measurements, the nearest being: - a network: 1 ms" in basis(2, ("a network: 1 ms",))
    kin = basis(0, ("a network: 1 ms",))
    assert "No measurement of this device is known. The predictions rest on those of its relatives" in kin
    assert ", the nearest: - a network: 1 ms" in kin
    alone = basis(0, ())
    assert "No measurement of this device or of a relative is known. The predictions rest on its peak rates" in alone
    assert "nearest" not in alone.partition("No measurement")[2].partition(", ms by cause")[0]


def test_of_a_run_the_devices_own_files_are_predicted_and_what_it_sent_back_stands_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.deploy import board_results, expected_latency

    run = run_folder(tmp_path / "run", "TensorRT 10 and 11, typed")
    (stats,) = profile(tmp_path / "run" / "onnx" / "student.onnx", tmp_path / "here").files[0].measured
    sent = stats.model_copy(update={"origin": "merged", "device": "NVIDIA Jetson Orin Nano", "latency_p50_ms": 0.5})
    board = SimpleNamespace(power_mode="MAXN_SUPER")
    monkeypatch.setattr(board_results, "merged_result", lambda *_: SimpleNamespace(board=board))
    monkeypatch.setattr(board_results, "latencies_of", lambda *_: {"student.fp16": sent})
    monkeypatch.setattr(expected_latency, "run_anchors", lambda *_: ())
    made = profile(run, tmp_path / "out", target="jetson")
    fp32, fp16 = made.files
    assert fp32.merged == ()
    assert [stats.latency_p50_ms for stats in fp16.merged] == [0.5]
    assert "measured on NVIDIA Jetson Orin Nano" in " ".join(profile_text(made, "out").split())
    assert made.notes[1].startswith("student.fp32: Predicted, not measured: ")
    assert f"`compress merge {run} result.json`" in made.notes[2]
    both = {"student.fp32": sent, "student.fp16": sent}
    monkeypatch.setattr(board_results, "latencies_of", lambda *_: both)
    assert profile(run, tmp_path / "out", target="jetson").notes == made.notes[:1]

    slower = profile(run, tmp_path / "slower", target="jetson@15W")
    assert [file.merged for file in slower.files] == [(), ()]
    said = "What the board sent back is left out: it ran in power mode MAXN_SUPER, and this is about 15W."
    assert [file.notes for file in slower.files] == [(said,), (said,)]
    text = " ".join(profile_text(slower, "slower").split())
    assert (text.count(said), "measured on NVIDIA" in text) == (1, False)


def test_a_guess_is_refused_and_said(tmp_path: Path) -> None:
    made = profile(tiny_onnx.write(tmp_path / "m.onnx", precision="int8"), tmp_path / "out", target="jetson-nano")
    (file,) = made.files
    assert file.predicted == ()
    assert file.notes == ("A latency in int8 was to be predicted for NVIDIA Jetson Nano 4 GB. It runs fp32, fp16.",)


def test_a_file_that_the_target_does_not_read_is_refused_and_one_in_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not read HardSwish") as refused:
        profile(hard_swish(tiny_onnx.write(tmp_path / "m.onnx")), tmp_path / "out", target="jetson-nano")
    assert "Export at opset 13 or lower" in refused.value.action
    assert len(profile(tmp_path / "m.onnx", tmp_path / "out", target="jetson", batches=(1,)).files[0].predicted) == 1

    run = run_folder(tmp_path / "run")
    hard_swish(run / "onnx" / "student.onnx")
    fp32, fp16 = profile(run, tmp_path / "of-run", target="jetson-nano").files
    assert fp32.predicted == ()
    assert fp32.notes[0].startswith("The ONNX parser of TensorRT 8.2.1 does not read HardSwish, which node 'node_relu'")
    assert len(fp16.predicted) == 1


# --- engines ----------------------------------------------------------------------------------------------------------


class Graph:
    """A CUDA graph that replays nothing: the outputs stay as the warm-up left them."""

    def replay(self) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of the stand-in for TensorRT, on a machine with an L4."""
    trt = fake_tensorrt.install(monkeypatch)
    trt.IProfiler = type("IProfiler", (), {})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: fake_tensorrt.GPU.name)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())
    path = tmp_path / "m.engine"
    engine_from_onnx(
        tiny_onnx.write(tmp_path / "m.onnx"),
        path,
        backend=load_backend("tensorrt"),
        precision="fp16",
        rebuild="make engine",
        preprocessing={},
        batch=BatchProfile(min=1, opt=1, max=4),
    )
    return path


def test_an_engine_is_timed_on_this_machines_gpu(engine: Path, tmp_path: Path) -> None:
    made = profile(engine, tmp_path / "out", batches=(1, 4, 8))
    assert (made.kind, made.target.title, made.target.this_host) == ("engine", "NVIDIA L4", True)
    (file,) = made.files
    assert (file.format, file.precision, file.memory) == ("engine", "fp16", None)
    assert [stats.batch_size for stats in file.measured] == [1, 4]
    assert file.measured[0].runtime == "TensorRT 10.13.3.9"
    assert file.measured[0].conditions[0] == "transfers to and from the GPU included"
    assert file.notes == ("Batch 8 was left out: the file takes 1 to 4 a call.",)
    assert file.layers is not None
    assert file.layers.source == "TensorRT's profiler"


def test_an_engine_for_another_device_a_damaged_one_and_one_without_a_gpu_are_refused(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageFault, match=r"built for compute capability 8\.9, not for NVIDIA T4") as other:
        profile(engine, tmp_path / "out", target="t4")
    assert "leave --target out" in other.value.action
    monkeypatch.setattr(tensorrt_backend, "usable_gpu", lambda: None)
    with pytest.raises(EnvironmentFault, match="GPU"):
        profile(engine, tmp_path / "out")
    engine.write_bytes(b"cut")
    with pytest.raises(InputRefused, match="3 bytes and is not the engine") as damaged:
        profile(engine, tmp_path / "out")
    assert "make engine" in damaged.value.action


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_precision_of_a_lone_file_is_read_from_its_graph(tmp_path: Path, precision: str) -> None:
    path = tiny_onnx.write(tmp_path / "m.onnx", precision=precision)
    assert precision_of(load_onnx(path)) == precision
    (source,) = sources_of(path, None).sources
    assert (source.variant.precision, source.image_shape, source.batches) == (precision, (3, 8, 8), (1, None))


def test_a_fixed_batch_is_kept_and_others_are_left_out(tmp_path: Path) -> None:
    (source,) = sources_of(tiny_onnx.write(tmp_path / "m.onnx", batch=3), None).sources
    assert source.batches_of(None) == (3,)
    assert source.batches_of((1, 3)) == (3,)
    assert source.left_out((1, 3)) == ["Batch 1 was left out: the file takes 3 a call."]
    open_batch = replace(source, batches=(1, None))
    assert open_batch.batches_of((1, 64)) == (1, 64)
    assert open_batch.left_out((1, 64)) == []


def test_what_cannot_be_profiled_is_refused(tmp_path: Path) -> None:
    tiny_onnx.write(tmp_path / "model.onnx")
    with pytest.raises(InputRefused) as absent:
        sources_of(tmp_path / "modell.onnx", None)
    assert "modell.onnx does not exist" in absent.value.received
    assert absent.value.action == "Did you mean model.onnx?"

    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputRefused, match="cannot be read as ONNX"):
        sources_of(tmp_path / "broken.onnx", None)

    with pytest.raises(InputRefused, match=r"image \(batch, 3, side, side\)") as open_size:
        sources_of(tiny_onnx.write(tmp_path / "open.onnx", size="side"), None)
    assert open_size.value.action == "Export the model with a fixed image size."

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputRefused, match="holds no finished run or export") as no_run:
        sources_of(empty, None)
    assert "one of its .onnx files" in no_run.value.action


def test_a_network_of_two_inputs_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "sum", values[:2], values[2:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InputRefused, match=r"takes a \(1, 4\), b \(1, 4\)"):
        sources_of(path, None)


# --- the request and its folder ---------------------------------------------------------------------------------------


def test_the_folder_is_named_after_source_and_target(tmp_path: Path) -> None:
    assert ProfileRequest(Path("a/m.onnx")).folder == Path("timings/m-here")
    assert ProfileRequest(Path("m.onnx"), "jetson@15W").folder == Path("timings/m-jetson@15W")
    assert ProfileRequest(Path("m.onnx"), "ok.yaml@25W").folder == Path("timings/m-ok@25W")
    assert ProfileRequest(Path("m.onnx"), "ok.yaml").folder == Path("timings/m-ok")
    assert ProfileRequest(Path("m.onnx"), "./b@home.yml").folder == Path("timings/m-b@home.yml")
    assert ProfileRequest(Path("runs/t-cpu/"), "./boards/mine.yaml").folder == Path("timings/t-cpu-mine")


def test_a_folder_of_others_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    source = tiny_onnx.write(tmp_path / "m.onnx")
    with pytest.raises(UsageFault) as taken:
        profile(source, tmp_path)
    assert f"{tmp_path} holds m.onnx and no profile.json of ours." == taken.value.received
    assert "--out" in taken.value.action
    with pytest.raises(UsageFault, match="is a file"):
        profile(source, source)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "profile.json").write_text(json.dumps({"mine": 1}))
    with pytest.raises(UsageFault, match=r"holds profile\.json and no profile\.json of ours"):
        profile(source, tmp_path / "own")


def test_a_profile_replaces_an_earlier_one_whole_and_touches_nothing_else(tmp_path: Path) -> None:
    one, other = (tiny_onnx.write(tmp_path / name) for name in ("one.onnx", "other.onnx"))
    out = tmp_path / "out"
    assert profile(one, out).notes == profile(one, out).notes == ()
    (out / "mine.txt").write_text("kept")
    made = profile(other, out)
    assert made.files[0].name == "other"
    assert made.notes == (f"This replaced the profile of {one} on This computer's CPU that was in {out}.",)
    assert made == read_profile(out / "profile.json")
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".TAG") == [
        ".lock",
        "layers-other.png",
        "mine.txt",
        "profile.json",
    ]
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputRefused):
        profile(tmp_path / "broken.onnx", out)
    earlier = read_profile(out / "profile.json")
    assert earlier is not None
    assert earlier.files[0].name == "other"  # nothing is lost


@pytest.mark.parametrize("words", ["", "0", "1,", "1,x", "-1", "1.5"])
def test_batches_that_are_no_numbers_are_refused(words: str) -> None:
    with pytest.raises(UsageFault) as error:
        profile_request(Path("m.onnx"), None, None, words, None)
    assert error.value.received == f"--batch got {words!r}."
    assert "--batch 1,8" in error.value.action


def test_batches_are_read_once_each() -> None:
    assert profile_request(Path("m.onnx"), None, None, "8, 1,8", None).batches == (8, 1)


def test_batches_that_no_file_takes_and_unknown_targets_are_refused(tmp_path: Path) -> None:
    source = tiny_onnx.write(tmp_path / "m.onnx", batch=2)
    with pytest.raises(UsageFault) as error:
        profile(source, tmp_path / "out", batches=(1, 4))
    assert "--batch has 1, 4" in error.value.received
    assert "the file takes 2 a call" in error.value.expected
    with pytest.raises(ProfileError, match="Unknown target 'jetsom'"):
        profile(source, tmp_path / "out", target="jetsom")
    assert not (tmp_path / "out").exists()

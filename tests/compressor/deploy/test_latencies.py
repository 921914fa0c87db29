"""Latencies of files on this machine: which are taken, in which thread settings, and which of them is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_onnx

from compressor.deploy import latencies, timed_sessions
from compressor.deploy.child_process import ChildFailed
from compressor.deploy.latencies import Timed, Timing, in_words, measure_files, measure_variants, slower_trials
from compressor.deploy.variants import Variant
from exporters.errors import ExportError
from profiles.catalogue import load_target
from profiles.latency import LatencyStats, ThreadTrial

SHORT = Timing(warmup_s=0.002, window_s=0.002, max_s=0.2)


def variant(name: str, **changes: object) -> Variant:
    return Variant("student", "fp32", name, "ONNX Runtime", **changes)  # type: ignore[arg-type]


def timed(path: Path, batch_size: int | None = None) -> Timed:
    return Timed(variant(path.name), path.parent, tiny_onnx.IMAGE_SHAPE, batch_size)


def test_one_and_all_cores_are_tried_and_the_faster_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latencies, "usable_cores", lambda: 3)
    (stats,) = measure_files([timed(tiny_onnx.write(tmp_path / "m.onnx"))], load_target("cpu"), SHORT)
    assert [trial.threads for trial in stats.thread_trials] == [1, 3]
    fastest = min(stats.thread_trials, key=lambda trial: trial.latency_p50_ms)
    assert (stats.threads, stats.latency_p50_ms) == (fastest.threads, fastest.latency_p50_ms)
    assert stats.runtime == f"ONNX Runtime CPU, {stats.threads} thread{'' if stats.threads == 1 else 's'}"
    assert len(slower_trials(stats)) == 1
    assert stats.is_target
    assert stats.num_sessions is not None
    assert stats.num_sessions >= 1  # more than one fit into the time where the machine is quiet


def test_a_number_of_threads_that_is_asked_for_is_the_only_one(tmp_path: Path) -> None:
    timing = Timing(**{**vars(SHORT), "threads": 2})
    (stats,) = measure_files([timed(tiny_onnx.write(tmp_path / "m.onnx"))], load_target("cpu"), timing)
    assert [trial.threads for trial in stats.thread_trials] == [2]
    assert slower_trials(stats) == ()


def test_one_core_leaves_one_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "usable_cores", lambda: 1)
    (stats,) = measure_files([timed(tiny_onnx.write(tmp_path / "m.onnx"))], load_target("jetson"), SHORT)
    assert [trial.threads for trial in stats.thread_trials] == [1]
    assert not stats.is_target


@pytest.mark.parametrize(("fixed", "wanted", "expected"), [("batch", None, 1), (3, None, 3), ("batch", 5, 5)])
def test_the_batch_is_the_wanted_one_or_the_files_own(
    tmp_path: Path, fixed: int | str, wanted: int | None, expected: int
) -> None:
    file = timed(tiny_onnx.write(tmp_path / "m.onnx", batch=fixed), wanted)
    (stats,) = measure_files([file], load_target("cpu"), SHORT)
    assert stats.batch_size == expected
    # At least half of the calls take the median or longer, whatever else the machine does.
    assert 0 < stats.throughput_ips <= 2 * expected * 1e3 / stats.latency_p50_ms


def test_every_variant_has_a_latency_or_a_reason(tmp_path: Path) -> None:
    tiny_onnx.write(tmp_path / "m.onnx")
    variants = [
        variant("m.onnx"),
        Variant("student", "fp16", "m.onnx", "TensorRT 8 with --fp16"),
        Variant("student", "int8", None, "ONNX Runtime", note="refused: too few images"),
    ]
    notes: list[str] = []
    found = measure_variants(variants, tmp_path, tiny_onnx.IMAGE_SHAPE, load_target("cpu"), SHORT, notes.append)
    assert list(found) == ["student.fp32", "student.fp16", "student.int8"]
    stats = LatencyStats.model_validate(found["student.fp32"])
    assert notes == [f"student fp32: {in_words(stats)} on this host"]
    assert "runs its types another way" in found["student.fp16"]["skipped"]
    assert found["student.int8"] == {"skipped": "refused: too few images"}


def test_a_file_that_does_not_run_is_refused_before_the_timing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"could not load .*m\.onnx"):
        measure_files([timed(tmp_path / "m.onnx", 1)], load_target("cpu"), SHORT)


def test_a_process_that_died_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def died(*_: object) -> None:
        raise ChildFailed("it was ended by signal 9")

    monkeypatch.setattr(timed_sessions, "answer_of_child", died)
    file = timed_sessions.OnnxSession(str(tmp_path / "m.onnx"), 1, 1, tiny_onnx.IMAGE_SHAPE, optimise=True)
    with pytest.raises(ExportError, match=r"times m\.onnx gave no answer: it was ended by signal 9") as refusal:
        timed_sessions.sessions_in_a_child([file, file], 0.01, 0.01)
    assert "compress doctor" in refusal.value.action


def test_the_words_say_what_else_was_tried(tmp_path: Path) -> None:
    (stats,) = measure_files([timed(tiny_onnx.write(tmp_path / "m.onnx"), 1)], load_target("cpu"), SHORT)
    trials = tuple(
        ThreadTrial(threads=threads, latency_p50_ms=p50, latency_p50_interval_ms=None, stable=True)
        for threads, p50 in ((1, 1.25), (2, 1.875))
    )
    fields = {
        "latency_p50_ms": 1.25,
        "latency_p99_ms": 2.0,
        "latency_p50_interval_ms": (1.2, 1.3),
        "latency_p50_as_timed_ms": 1.4,
        "threads": 1,
    }
    known = stats.model_copy(update={**fields, "stable": False, "thread_trials": trials})
    assert in_words(known) == "p50 1.25 ms (1.2 to 1.3; as timed 1.4), p99 2 ms, 1 thread (2: 1.88 ms), unstable"

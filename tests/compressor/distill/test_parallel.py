"""Several processes train as one: the same gradients, the same decisions, and what one of them meets all answer."""

from __future__ import annotations

from pathlib import Path

import processes
import pytest
import tiny
import torch
from processes import together
from torch import Tensor

from compressor.distill.parallel import World, checksum
from compressor.distill.training import read_log
from compressor.errors import Interrupted
from compressor.methods import method_names


def close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Within rounding of fp32."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=tolerance, atol=tolerance * float(other[name].abs().max())), name


# --- without batch norm: what one process computes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "rows", "num_parts", "asked"),
    [(2, 12, 1, 6), (2, 7, 1, 4), (3, 13, 1, 5), (2, 12, 2, 6), (2, 3, 1, 3)],
    ids=["even", "uneven", "three", "in parts", "too few rows to divide"],
)
def test_gradients_are_those_of_one_process(tmp_path: Path, size: int, rows: int, num_parts: int, asked: int) -> None:
    options = {"rows": rows, "num_parts": num_parts}
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, rows=rows)
    found = together(processes.train_toy, tmp_path / "all", size, **options)
    for result in found:
        close(result["gradients"], alone["gradients"])
        assert tiny.equal(result["gradients"], found[0]["gradients"])
        assert torch.equal(result["random"], found[0]["random"])
    assert found[0]["asked"] == asked


def test_a_term_about_the_whole_batch_is_computed_whole(tmp_path: Path) -> None:
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1)
    for result in together(processes.train_toy, tmp_path / "both", divisible=False):
        assert result["asked"] == 12
        close(result["gradients"], alone["gradients"])


def test_a_gradient_that_was_there_is_not_added_up(tmp_path: Path) -> None:
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, earlier=0.5)
    for result in together(processes.train_toy, tmp_path / "both", earlier=0.5):
        close(result["gradients"], alone["gradients"])


def test_many_steps_keep_to_one_process(tmp_path: Path) -> None:
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, steps=8)
    one, other = together(processes.train_toy, tmp_path / "both", steps=8)
    close(one["network"], alone["network"], 1e-4)
    assert tiny.equal(one["network"], other["network"])
    rows = [read_log(tmp_path / name / "log.jsonl") for name in ("alone", "both")]
    assert [row["step"] for row in rows[1]] == list(range(8))
    means = [[row["terms"]["distance"] for row in part] for part in rows]
    assert means[1] == pytest.approx(means[0], rel=1e-4)


@pytest.mark.parametrize("num_classes", [4, 40], ids=["batch", "running mean"])
def test_the_marginal_of_the_smoothing_term_is_that_of_the_whole_batch(tmp_path: Path, num_classes: int) -> None:
    (alone,) = together(processes.smooth, tmp_path / "alone", 1, num_classes=num_classes)
    one, other = together(processes.smooth, tmp_path / "both", num_classes=num_classes)
    close(one, alone)
    assert tiny.equal(one, other)
    assert (one["frequency"] > 1).any()


def test_what_a_monitor_has_seen_is_what_all_have_seen(tmp_path: Path) -> None:
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, steps=3)
    for result in together(processes.train_toy, tmp_path / "both", steps=3):
        close(result["monitor"], alone["monitor"])


def test_every_process_drops_out_of_its_own_rows_and_ends_at_the_same_random_state(tmp_path: Path) -> None:
    one, other = together(processes.train_toy, tmp_path, steps=2, dropout=0.5)
    assert torch.equal(one["random"], other["random"])
    assert tiny.equal(one["network"], other["network"])


# --- with batch norm --------------------------------------------------------------------------------------------------


def test_batch_norm_sees_parts_and_all_keep_the_same_statistics(tmp_path: Path) -> None:
    """`benchmarks/parallel_batch_norm.py` has the deviation on real networks."""
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, rows=128, batch_norm=True)
    one, other = together(processes.train_toy, tmp_path / "both", rows=128, batch_norm=True)
    assert tiny.equal(one["network"], other["network"])
    gradients = [torch.cat([g.flatten() for g in found["gradients"].values()]) for found in (one, alone)]
    assert 1e-5 < float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 0.2
    close({"mean": one["network"]["1.running_mean"]}, {"mean": alone["network"]["1.running_mean"]})
    close({"var": one["network"]["1.running_var"]}, {"var": alone["network"]["1.running_var"]}, 0.02)


# --- what one meets, all meet -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", [0, 1])
def test_a_request_to_stop_one_stops_both_after_the_same_step(tmp_path: Path, stopping: int) -> None:
    options = {"steps": 6, "batch_norm": True, "dropout": 0.5}
    whole = together(processes.train_toy, tmp_path / "whole", **options)[0]
    stopped = together(processes.train_toy, tmp_path / "run", stop_at=2, stopping=stopping, **options)
    for error in stopped:
        assert error.kind == "Interrupted"
        assert error.received == "The run was stopped in phase toy after step 3 of 6."
    again = together(processes.train_toy, tmp_path / "run", **options)
    for result in again:
        assert tiny.equal(result["network"], whole["network"])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_another_number_of_processes_goes_on(tmp_path: Path, before: int, after: int) -> None:
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, steps=6)
    for size, stop_at in ((before, 2), (after, None)):
        if size == 1 and stop_at is not None:
            with pytest.raises(Interrupted):
                together(processes.train_toy, tmp_path / "run", 1, steps=6, stop_at=stop_at)
        else:
            found = together(processes.train_toy, tmp_path / "run", size, steps=6, stop_at=stop_at)
    for result in found:
        close(result["network"], alone["network"], 1e-4)


def test_a_loss_that_is_not_finite_in_one_is_answered_by_both(tmp_path: Path) -> None:
    one, other = together(processes.train_toy, tmp_path, steps=6, fault="nan")
    (remedy,) = one["remedies"]
    assert remedy.startswith("Loss term distance of phase toy is not finite by step 2.")
    assert remedy.endswith("on with 0.3 of the learning rate.")
    assert other["remedies"] == one["remedies"]
    assert tiny.equal(one["network"], other["network"])
    assert all(value.isfinite().all() for value in one["network"].values())


def test_a_loss_that_stays_broken_in_one_ends_both(tmp_path: Path) -> None:
    for error in together(processes.train_toy, tmp_path, steps=6, fault="nan", until=0.0):
        assert error.kind == "StageFailed"
        assert "0.3 and then 0.09 of the learning rate" in error.expected


def test_a_memory_that_is_too_small_in_one_divides_the_batches_of_both(tmp_path: Path) -> None:
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, steps=6)
    found = together(processes.train_toy, tmp_path / "both", steps=6, fault="memory")
    for result in found:
        (remedy,) = result["remedies"]
        assert "batches in 2 parts, whose gradients add up" in remedy
        close(result["network"], alone["network"], 1e-4)


def test_a_batch_that_cannot_be_divided_further_ends_both(tmp_path: Path) -> None:
    for error in together(processes.train_toy, tmp_path, steps=6, rows=14, fault="memory", divisible=False):
        assert error.kind == "OutOfMemoryError"


def test_weights_that_are_no_longer_the_same_fail_the_stage(tmp_path: Path) -> None:
    for error in together(processes.train_toy, tmp_path, steps=6, fault="drift"):
        assert error.kind == "StageFailed"
        assert error.received.startswith(
            "The 2 processes of this training no longer hold the same weights in phase toy"
        )
    assert not (tmp_path / "checkpoint-toy.pt").exists()


@pytest.mark.parametrize("fault", ["killed", "raises"])
def test_a_process_that_is_gone_ends_the_other_and_what_is_saved_goes_on(tmp_path: Path, fault: str) -> None:
    (alone,) = together(processes.train_toy, tmp_path / "alone", 1, steps=6)
    one, other = together(processes.train_toy, tmp_path / "run", steps=6, fault=fault)
    assert (one.kind, one.exit_code) == ("ProcessLost", 130)
    assert one.received.startswith("One of the 2 processes of this training is gone")
    assert other is None if fault == "killed" else other.kind == "ValueError"
    for result in together(processes.train_toy, tmp_path / "run", steps=6):
        close(result["network"], alone["network"], 1e-4)


# --- whole methods ----------------------------------------------------------------------------------------------------


def test_every_method_ends_with_the_same_student_in_all_processes(tmp_path: Path) -> None:
    """Which the check of every checkpoint would fail as well."""
    found = together(processes.distil, tmp_path, names=list(method_names()))
    for result in found:
        assert set(result) == set(method_names()), result
        for name in method_names():
            assert tiny.equal(result[name], found[0][name]), name
            assert all(value.isfinite().all() for value in result[name].values())


# --- one process alone ------------------------------------------------------------------------------------------------


def test_one_process_alone_is_told_what_it_says() -> None:
    world = World()
    assert world.first
    assert world.any(True, False) == (True, False)
    assert world.first_not_none("what") == "what"
    assert world.send(b"bytes") == b"bytes"
    assert world.alike([torch.rand(3)])


def test_a_checksum_sees_every_bit() -> None:
    tensors = [torch.rand(3, 4, 2, 2), torch.arange(5), torch.zeros(()), torch.zeros(7, dtype=torch.uint8)]
    changed = [tensor.clone() for tensor in tensors]
    assert checksum(changed) == checksum(tensors)
    assert checksum([tensors[0].to(memory_format=torch.channels_last), *tensors[1:]]) == checksum(tensors)
    changed[0][0, 0, 0, 0] = torch.nextafter(changed[0][0, 0, 0, 0], torch.tensor(2.0))
    assert checksum(changed) != checksum(tensors)

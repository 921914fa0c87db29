"""A candidate on trial is the network that would ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from compressor.students.footprint import footprint
from compressor.students.specification import build_backbone
from compressor.students.student import classifier_sharing
from compressor.students.trial import TRIAL_OPSET, Trial
from exporters.onnx_files import load_onnx, opset_of
from exporters.torch_to_onnx import onnx_from_torch
from profiles.kernels import fused_kernels
from profiles.predict import PredictionRefused


@pytest.mark.parametrize(
    "architecture", ["cifar_resnet8", "cifar_wrn10_2", pytest.param("mobilenet_v2", marks=pytest.mark.slow)]
)
def test_the_quick_exporter_gives_the_kernels_of_the_one_that_ships(architecture: str, tmp_path: Path) -> None:
    teacher = tiny.teacher(architecture, image_shape=(3, 32, 32))
    student = classifier_sharing(build_backbone("prune:0.5", teacher, channel_multiple=8, seed=0), teacher)
    kernels = {}
    for opset in (13, TRIAL_OPSET, 20):
        file = onnx_from_torch(
            student, teacher.card.input_shape, tmp_path / f"{opset}.onnx", opset_ceiling=opset, metadata={}
        )
        assert file.opset == opset
        kernels[opset] = fused_kernels(load_onnx(file.path))
    assert kernels[13] == kernels[TRIAL_OPSET] == kernels[20]


def test_a_file_is_written_at_an_opset_that_the_target_reads(tmp_path: Path) -> None:
    seen = []

    def latency_of(path: Path) -> None:
        seen.append(opset_of(load_onnx(path)))
        raise PredictionRefused("No peaks.", "Peaks.", "Add them.")

    trial = Trial(
        tiny.teacher(),
        tmp_path,
        channel_multiple=8,
        precision="fp16",
        latency_of=latency_of,  # type: ignore[arg-type]
        opset_ceiling=13,
        seed=0,
    )
    row = trial.teacher_row()
    assert seen == [13]
    assert trial.no_latency == "No peaks. Peaks."
    assert row.candidate.latency is None
    fp32_mib = footprint(trial.teacher.network, (3, 8, 8)).weights_mib(4)
    # Half of the weights went, the graph stayed.
    graph_mib = (row.candidate.size_mib or 0.0) - fp32_mib / 2
    assert 0 < graph_mib == pytest.approx(trial._file.stat().st_size / 2**20 - fp32_mib)


def test_memory_is_weights_and_the_largest_step() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 2, 1, bias=False))
    found = footprint(network, (3, 4, 4))
    assert (found.params, found.macs) == (40, 40 * 16)
    assert found.largest_step == (8 + 8) * 16  # the activation reads and writes eight channels
    assert found.memory_gib(2) == (40 + 256) * 2 / 2**30
    assert found.weights_mib(4) == 160 / 2**20


def test_counting_leaves_the_network_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = tiny.snapshot(network)
    footprint(network, (3, 4, 4))
    assert tiny.equal(tiny.snapshot(network), before)
    assert network.training
    assert not any(layer._forward_hooks for layer in network)
    assert torch.is_grad_enabled()

"""A classifier of one output as one of two: a yes-or-no question that was answered with one number and a sigmoid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx
import torch
from torch import Tensor

from compressor.errors import InputRefused
from compressor.inputs.card_facts import FROM_WEIGHTS, Facts
from compressor.inputs.network_file import NetworkFile
from exporters.onnx_two_logits import answer_both

ONE_LOGIT = (
    "The teacher has one output z, which is read as the logit of a yes-or-no question and became two classes with the "
    "logits 0 and z: their softmax is exactly 1 - sigmoid(z) and sigmoid(z). The student has two logits as well. Where "
    "z is a number and no logit, state --task regression."
)


def with_two_logits(facts: Facts, tensors: Mapping[str, Tensor], classifier_layer: str) -> dict[str, Tensor]:
    """The same network with the outputs (0, z) in the place of z: a row of zeros before weight and bias.

    Exact, because exp(z) / (exp(0) + exp(z)) is the sigmoid of z.

    Args:
        facts: a number of classes that counts outputs becomes 2 in it.
        classifier_layer: with a weight (1, D), or (1, D, 1, 1), and perhaps a bias (1,).

    Raises:
        InputRefused: one class has a name.
    """
    _count_two(facts)
    rows = {f"{classifier_layer}.weight", f"{classifier_layer}.bias"}
    return {
        name: torch.cat([torch.zeros_like(tensor), tensor]) if name in rows else tensor
        for name, tensor in tensors.items()
    }


def answering_both(facts: Facts, found: NetworkFile) -> NetworkFile:
    """The same for a network that is run from its file: an ONNX file is changed, any other says it when it is opened.

    Args:
        facts: as of `with_two_logits`.
        found: one output for each image.

    Raises:
        InputRefused: one class has a name.
    """
    _count_two(facts)
    if found.kind != "onnx":
        return replace(found, num_classes=2, one_logit=True)
    proto = onnx.load_from_string(found.content)
    answer_both(proto)
    return replace(found, num_classes=2, content=proto.SerializeToString())


def _count_two(facts: Facts) -> None:
    names = facts.values.get("class_names")
    if isinstance(names, list | tuple) and len(names) == 1:
        source = facts.origin["class_names"]
        raise InputRefused(
            f"The teacher {facts.file} has one output, and {source} names one class, '{names[0]}'.",
            "Two names were expected, for the answers no and yes: an output above 0 is the second.",
            f"State both, such as 'not {names[0]}' and '{names[0]}'.",
        )
    if facts.values.get("num_classes") == 1:
        facts.state("num_classes", 2, FROM_WEIGHTS)

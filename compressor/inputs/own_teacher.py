"""A teacher of the user's own network class: what intake has to know before its weights, and what it checks after."""

from __future__ import annotations

from pathlib import Path

import torch

from compressor.errors import InputRefused
from compressor.inputs.card import MAX_SIDE, MIN_SIDE, TeacherCard
from compressor.inputs.card_facts import Facts
from compressor.inputs.own_code import ARCHIVE, OwnCode, packed_code
from compressor.students.architectures import build_network
from compressor.students.last_layer import DROP_NOTHING
from compressor.students.own_networks import know_own_network
from compressor.yaml_files import brief
from exporters.causes import one_line


def know_the_own_network(facts: Facts, own: OwnCode, input_size: object) -> str:
    """Run the code that --arch names; the sentence for the report that says so.

    Args:
        input_size: the flag, pixels or height and width, or None.

    Raises:
        UsageFault, InputRefused: the code does not do, or nobody states the size of its images.
    """
    shape = facts.values.get("input_shape")
    if input_size is None and isinstance(shape, list | tuple) and len(shape) == 3:
        input_size = shape[1:]
    sides = tuple(input_size) if isinstance(input_size, list | tuple) else (input_size, input_size)
    if not all(isinstance(side, int) for side in sides) or len(sides) != 2:
        raise InputRefused(
            f"The input size of the teacher {facts.file} is stated nowhere.",
            f"Height and width were expected: nothing says what {own.name} was trained on, and a wrong size gives "
            "wrong answers without an error.",
            "State --input-size, such as 32x32, or input_shape in a card.",
        )
    height, width = sides
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):  # before images of that size are made
        raise InputRefused(
            f"The input size of the teacher {facts.file} is stated as {brief(height)}x{brief(width)}.",
            f"Sides of {MIN_SIDE} to {MAX_SIDE} pixels were expected.",
            "Correct --input-size, or input_shape in the card.",
        )
    know_own_network(own, (height, width))
    return (
        f"Code was run: {own.factory} of {own.files[0]} builds the teacher, because --arch named it. The run keeps a "
        f"copy of it ({', '.join(own.files)}) in teacher/{ARCHIVE}."
    )


def know_packed_network(card: TeacherCard, archive: Path) -> None:
    """The card's own network from the copy of its code that a run keeps; that code runs.

    Raises:
        InputRefused: the copy does not run by itself.
    """
    know_own_network(packed_code(card.architecture, archive), card.input_shape[1:])


def check_own_output(card: TeacherCard) -> None:
    """Whether the network gives what the card says, (B, K), of one image as of two.

    Raises:
        InputRefused: it drops a dimension, or counts on another number of outputs.
    """
    network = build_network(card.architecture, card.num_classes, card.input_shape[0]).eval()
    for count in (1, 2):
        try:
            with torch.no_grad():
                gave = f"gives the shape {tuple(network(torch.zeros(count, *card.input_shape)).shape)}"
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            gave = f"fails ({type(error).__name__}: {one_line(error)})"
        if gave != f"gives the shape {(count, card.num_classes)}":
            raise InputRefused(
                f"The network {card.architecture} {gave} for a batch of {count}, with a last layer of "
                f"{card.num_classes} outputs.",
                f"The outputs of that layer, {(count, card.num_classes)}, were expected as they are.",
                DROP_NOTHING,
            )

"""The last layer of a network that nobody here has read: the one whose output is the network's own.

It is seen by passing two images through, and is linear, or a 1x1 convolution whose map is averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.errors import InputRefused
from exporters.causes import one_line

NUM_TRACED = 2  # images: with one, a network that drops its batch dimension would not be seen
CHANNELS = (3, 1, 4)  # tried in this order on a network without a convolution
CLOSE = {"rtol": 1e-4, "atol": 1e-6}  # an average is summed in another order
SHOWN = 3
DROP_NOTHING = "Take what follows the last layer, such as .squeeze() or .view(), out of forward: it has no weights."
RETURN_ONE = (
    "Write a class that inherits from the network's and returns that one tensor from its forward, and name it in "
    "--arch: its weights keep their names."
)


@dataclass(frozen=True)
class Last:
    """The layer whose output is the network's."""

    name: str
    is_linear: bool
    in_channels: int  # of the image


def last_layer(of: str, network: nn.Module, sides: tuple[int, int]) -> Last:
    """Found on random images.

    Raises:
        InputRefused: the network does not take the images, gives no logits, or does something to its last layer's.
    """
    stem = next((layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    faults = []
    for channels in CHANNELS if stem is None else (stem,):
        try:
            images = torch.rand(NUM_TRACED, channels, *sides, generator=torch.Generator().manual_seed(0))
            with torch.no_grad(), _recorded(network) as outputs:
                logits = network(images)
        except (Exception, SystemExit) as error:
            faults.append(described(error))
            continue
        name = _whose_output(of, _checked(of, logits), outputs)
        return Last(name, isinstance(network.get_submodule(name), nn.Linear), channels)
    height, width = sides
    shape = "" if stem is None else f" of {stem} channel{'s' * (stem != 1)}"
    raise InputRefused(
        f"The network {of} does not take images of {height}x{width} pixels{shape}: {faults[0]}.",
        "A network was expected that takes a batch of images, (B, C, H, W), of the teacher's input size.",
        "State the size that it was trained on with --input-size, or correct its forward.",
    )


@contextmanager
def _recorded(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """By name, in the order of their calls, what linear layers and 1x1 convolutions put out in the forward inside."""
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: found.update({name: output.clone()}))
        for name, layer in network.named_modules()
        if name and (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)))
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _checked(of: str, output: object) -> Tensor:
    """The output (B, K) of two images.

    Raises:
        InputRefused: it is anything else.
    """
    if isinstance(output, Tensor) and output.ndim == 2 and len(output) == NUM_TRACED:
        return output
    if isinstance(output, Tensor):
        gave = f"gives a tensor of shape {tuple(output.shape)} for {NUM_TRACED} images"
    elif isinstance(output, Mapping):
        gave = f"gives a dictionary ({', '.join(map(str, list(output)[:SHOWN]))})"
    elif isinstance(output, tuple | list):
        gave = f"gives a {type(output).__name__} of {len(output)} outputs"
    else:
        gave = f"gives a {type(output).__name__}"
    flat = isinstance(output, Tensor) and output.ndim < 2
    raise InputRefused(
        f"The network {of} {gave}.",
        "One tensor (B, K) was expected: K logits, or K numbers, for each image.",
        DROP_NOTHING if flat else RETURN_ONE,
    )


def _whose_output(of: str, logits: Tensor, outputs: Mapping[str, Tensor]) -> str:
    """The last of the layers whose output, averaged over positions where it has any, is the network's."""
    for name, output in reversed(list(outputs.items())):
        own = output.flatten(2).mean(dim=2) if output.ndim > 2 else output
        if own.shape == logits.shape and torch.allclose(own, logits, equal_nan=True, **CLOSE):
            return name
    last = ", ".join(list(outputs)[-SHOWN:])
    raise InputRefused(
        f"The output of the network {of} is that of none of its "
        f"{'layers' if not last else f'linear layers or 1x1 convolutions, of which the last are {last}'}.",
        "The logits of a last linear layer, as it gives them, were expected: no softmax, sigmoid or scaling after it.",
        "Return these logits from forward; softmax and sigmoid have no weights, so the same file of weights fits.",
    )


def described(error: BaseException) -> str:
    """What foreign code raised, as a clause without a period."""
    return f"{type(error).__name__}: {one_line(error)}".rstrip(".: ")

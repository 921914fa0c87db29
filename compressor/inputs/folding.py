"""Batch norms of a frozen network folded into the convolutions before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@contextmanager
def folded_batch_norms(network: nn.Module, *, keep: str = "") -> Iterator[None]:
    """Inside, a network in evaluation mode computes the same, to rounding, with no pass over a map for its batch norm.

    A batch norm is folded where it alone reads the output of one convolution. A network that torch.fx cannot follow,
    because it looks at values, stays as it is. Afterwards the network has its own layers again.

    Args:
        keep: name of a layer that somebody listens to, whose output stays what it is.
    """
    own: dict[str, nn.Module] = {}
    for before, after in _foldable(network, keep):
        convolution, norm = (network.get_submodule(name) for name in (before, after))
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        own |= {before: convolution, after: norm}
        network.set_submodule(before, fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(after, nn.Identity())
    try:
        yield
    finally:
        for name, layer in own.items():
            network.set_submodule(name, layer)


def _foldable(network: nn.Module, keep: str) -> list[tuple[str, str]]:
    """Names of convolutions, each with the batch norm after it."""
    try:
        nodes = fx.symbolic_trace(network).graph.nodes
    except Exception:  # a trace runs the network's own code on stand-ins, so that anything may be raised
        return []
    layers = dict(network.named_modules())
    num_calls = Counter(node.target for node in nodes if node.op == "call_module")

    def layer(node: fx.Node) -> nn.Module | None:
        called_once = node.op == "call_module" and num_calls[node.target] == 1
        return layers[str(node.target)] if called_once else None

    found = []
    for node in nodes:
        norm = layer(node)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        before = node.all_input_nodes[0]
        if isinstance(layer(before), nn.Conv2d) and len(before.users) == 1 and before.target != keep:
            found.append((str(before.target), str(node.target)))
    return found

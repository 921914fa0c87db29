"""The names of tensors in an ONNX graph, and in the bodies of If, Loop and Scan within it: listed, made, changed."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def names_in(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name in use, of tensors and of nodes; some more than once."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for body in _bodies(node):
            yield from names_in(body)


def fresh_name(name: str, taken: set[str]) -> str:
    """This name, or one like it that is not taken; it is taken then."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def rename(graph: onnx.GraphProto, old: str, new: str, *, everywhere: bool = False) -> None:
    """Let every reader of a tensor read another, also inside of bodies.

    Args:
        everywhere: whoever makes it makes the other: nodes, initialisers, and what a body is given. The graph's own
            inputs and outputs stay as they are.
    """

    def renamed(name: str) -> str:
        return new if name == old else name

    if everywhere:
        for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
            tensor.name = renamed(tensor.name)
    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        if everywhere:
            node.output[:] = [renamed(name) for name in node.output]
        for body in _bodies(node):
            for value in (*body.output, *((*body.input, *body.value_info) if everywhere else ())):
                value.name = renamed(value.name)
            rename(body, old, new, everywhere=everywhere)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs

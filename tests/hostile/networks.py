"""ONNX files that mean harm: weights that lie elsewhere, graphs without end, names with orders in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
from hostile.corpus import Entry, Place
from hostile.teachers import CUTS, cut, flipped
from onnx import TensorProto, helper

REFUSED = (2, 4)


def _good(place: Place) -> onnx.ModelProto:
    return onnx.load(place.good / "model.onnx")


def _changed(change: Callable[[onnx.ModelProto, Place], None]) -> Callable[[Place], Path]:
    """Our own student, changed."""

    def write(place: Place) -> Path:
        proto = _good(place)
        change(proto, place)
        path = place.given / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return write


def _external(tensor: onnx.TensorProto, location: str, **entries: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)


def _elsewhere(location: str, **entries: str) -> Callable[[Place], Path]:
    """Weights in another file; `secret` lies outside of the model's folder, and links and pipes inside."""

    def change(proto: onnx.ModelProto, place: Place) -> None:
        (place.folder / "secret").write_bytes(bytes(2**20))
        (place.given / "link").symlink_to(place.folder / "secret")
        (place.given / "folder").symlink_to(place.folder)
        (place.given / "weights").write_bytes(bytes(100))
        os.mkfifo(place.given / "pipe")
        _external(proto.graph.initializer[0], location.replace("{}", str(place.folder)), **entries)

    return _changed(change)


def _in_a_branch(attribute: str) -> Callable[[Place], Path]:
    """Weights of a graph within a node, or of a list of tensors, that lie elsewhere."""

    def change(proto: onnx.ModelProto, place: Place) -> None:
        (place.folder / "secret").write_bytes(bytes(2**20))
        tensor = helper.make_tensor("inner", TensorProto.FLOAT, [4], bytes(16), raw=True)
        _external(tensor, "../secret")
        inner = helper.make_graph(
            [helper.make_node("Identity", ["inner"], ["got"])],
            "g",
            [],
            [helper.make_tensor_value_info("got", TensorProto.FLOAT, [4])],
            [tensor],
        )
        condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
        proto.graph.initializer.append(condition)
        node = helper.make_node("If", ["condition"], ["chosen"], then_branch=inner, else_branch=inner)
        if attribute == "sparse":
            del node.attribute[:]
            node.op_type = "Constant"
            del node.input[:]
            sparse = helper.make_sparse_tensor(
                tensor, helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3]), [9]
            )
            node.attribute.append(helper.make_attribute("sparse_value", sparse))
        proto.graph.node.insert(0, node)

    return _changed(change)


def _cycle(proto: onnx.ModelProto, _: Place) -> None:
    first = proto.graph.node[0]
    first.input[0] = proto.graph.node[-1].output[0]


def _itself(proto: onnx.ModelProto, _: Place) -> None:
    proto.graph.node.append(helper.make_node("Add", ["loop", "loop"], ["loop"]))


def _large(proto: onnx.ModelProto, _: Place) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend([2**31, 2**31])


def _negative(proto: onnx.ModelProto, _: Place) -> None:
    proto.graph.initializer[0].dims[0] = -1


def _filled(proto: onnx.ModelProto, _: Place) -> None:
    """A constant of terabytes, by its shape alone."""
    shape = helper.make_tensor("huge_shape", TensorProto.INT64, [2], [2**22, 2**22])
    proto.graph.initializer.append(shape)
    proto.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"]))
    proto.graph.node.append(helper.make_node("ReduceSum", ["huge"], ["huge_sum"]))
    output = proto.graph.output[0].name
    last = next(node for node in proto.graph.node if output in node.output)
    last.output[list(last.output).index(output)] = "before"
    proto.graph.node.append(helper.make_node("Squeeze", ["huge_sum"], ["huge_scalar"]))
    proto.graph.node.append(helper.make_node("Add", ["before", "huge_scalar"], [output]))


def _operator(domain: str, name: str) -> Callable[[Place], Path]:
    def change(proto: onnx.ModelProto, _: Place) -> None:
        output = proto.graph.output[0].name
        last = next(node for node in proto.graph.node if output in node.output)
        last.output[list(last.output).index(output)] = "before"
        proto.graph.node.append(helper.make_node(name, ["before"], [output], domain=domain))
        if domain:
            proto.opset_import.add(domain=domain, version=1)

    return _changed(change)


def _named(name: str) -> Callable[[Place], Path]:
    def change(proto: onnx.ModelProto, _: Place) -> None:
        for node in proto.graph.node:
            node.name = name + node.name
            node.domain = "x" if node.op_type == "Relu" else node.domain
        proto.graph.initializer[0].name = name

    return _changed(change)


def _input(*shape: int | str, name: str = "image") -> Callable[[Place], Path]:
    """A network that takes other images."""

    def write(place: Place) -> Path:
        graph = helper.make_graph(
            [helper.make_node("ReduceMean", [name], ["logits"], keepdims=0, axes=[2, 3])],
            "g",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], shape[1]])],
        )
        path = place.given / "model.onnx"
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        path.write_bytes(model.SerializeToString())
        return path

    return write


def _deep(proto: onnx.ModelProto, _: Place) -> None:
    """Graphs within graphs."""
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    for _level in range(20):
        inner = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner)], "g", [], [])
    proto.graph.node.insert(0, helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))


def _damaged(change: Callable[[bytes], bytes]) -> Callable[[Place], Path]:
    def write(place: Place) -> Path:
        path = place.given / "model.onnx"
        path.write_bytes(change((place.good / "model.onnx").read_bytes()))
        return path

    return write


FILES: dict[str, Callable[[Place], Path]] = {
    "weights in a folder above": _elsewhere("../secret"),
    "weights at an absolute path": _elsewhere("{}/secret"),
    "weights behind a link": _elsewhere("link"),
    "weights behind a link to a folder": _elsewhere("folder/secret"),
    "weights in a pipe": _elsewhere("pipe"),
    "weights in a device": _elsewhere("/dev/zero"),
    "weights nowhere": _elsewhere(""),
    "weights before their file": _elsewhere("weights", offset="-10"),
    "weights beyond their file": _elsewhere("weights", offset=str(2**60)),
    "weights of 2^60 bytes": _elsewhere("weights", length=str(2**60)),
    "weights at no number": _elsewhere("weights", offset="x" * 1000),
    "weights of a branch in a folder above": _in_a_branch("graph"),
    "sparse weights in a folder above": _in_a_branch("sparse"),
    "a circle": _changed(_cycle),
    "a node that feeds itself": _changed(_itself),
    "weights of 2^62 numbers, by their shape": _changed(_large),
    "weights of a negative shape": _changed(_negative),
    "a constant of terabytes": _changed(_filled),
    "an operator nobody knows": _operator("", "Nonsense"),
    "an operator of a stranger": _operator("com.stranger", "Run"),
    "an operator of a stranger, with escapes": _operator("\x1b[31m\n::error::x", "Run\u202e"),
    "names with escapes": _named("\x1b[31m\n::error::x\u202e"),
    "names of a million letters": _named("x" * 1_000_000),
    "graphs within graphs": _changed(_deep),
    "images of 2^40 pixels": _input("n", 3, 2**20, 2**20),
    "images of no pixels": _input("n", 3, 0, 0),
    "images of a negative size": _input("n", 3, -1, -1),
    "2^62 images at once": _input(2**62, 3, 8, 8),
    "100 million images at once": _input(10**8, 3, 8, 8),
    "no model": lambda place: _damaged(lambda _: b"\x08\x08\x12\x00")(place),
    "a text": lambda place: _damaged(lambda _: b"hello " * 100)(place),
    **{f"cut in its {part}": _damaged(partial(cut, share=share)) for part, share in CUTS.items()},
    **{f"byte {where} turned": _damaged(partial(flipped, place=where)) for where in (0, 3, 40)},
}
ENTRIES = tuple(Entry(f"ONNX: {name}", "ONNX", "--from", REFUSED, write) for name, write in FILES.items())

"""The icicle of layer times: its tree, and that every picture can be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image

from compressor.report.layers_picture import UNNAMED, WHOLE, Part, layers_picture, tree
from profiles.layer_times import LayerTime, LayerTimes


def table(*rows: tuple[str, str, float]) -> LayerTimes:
    sum_ms = sum(time_ms for _, _, time_ms in rows)
    layers = tuple(
        LayerTime(name=f"node {index}", module=module, operator=operator, time_ms=time_ms, share=time_ms / sum_ms)
        for index, (module, operator, time_ms) in enumerate(rows)
    )
    return LayerTimes(source="ONNX Runtime's profile", batch_size=1, threads=1, calls=9, sum_ms=sum_ms, layers=layers)


def spelled(part: Part) -> object:
    """(name, ms) of a leaf, and its parts behind it of another."""
    return (
        (part.name, part.time_ms, [spelled(inner) for inner in part.parts])
        if part.parts
        else (
            part.name,
            part.time_ms,
        )
    )


def test_layers_stand_under_their_parts_in_the_order_of_execution() -> None:
    times = table(
        ("net.stem", "Conv 3x3", 1.0),
        ("", "Reorder", 0.5),
        ("net.blocks.0.a", "Conv 1x1", 2.0),
        ("net.blocks.0.b", "Conv 3x3", 3.0),
        ("net.blocks.0.b", "Add", 0.25),
        ("head", "Gemm", 0.25),
    )
    blocks = ("blocks.0", 5.25, [("a", 2.0), ("b", 3.25, [("Conv 3x3", 3.0), ("Add", 0.25)])])
    assert spelled(tree(times.layers)) == (
        WHOLE,
        7.0,
        [("net", 6.25, [("stem", 1.0), blocks]), (UNNAMED, 0.5), ("head", 0.25)],
    )


def test_a_level_that_holds_all_is_left_out_at_the_top() -> None:
    times = table(("m.a", "Conv 3x3", 1.0), ("m.b", "Conv 3x3", 2.0))
    assert spelled(tree(times.layers)) == (WHOLE, 3.0, [("a", 1.0), ("b", 2.0)])


def test_a_name_and_its_time_are_told_apart_and_the_sum_is_called_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words: list[str] = []
    monkeypatch.setattr(Axes, "text", lambda *given, **_: words.append(given[3]))
    times = table(("layers.0", "Conv 3x3", 0.03), ("layers.1", "Conv 3x3", 0.0206))
    layers_picture(times, tmp_path / "layers.png", title="a title")
    assert words == ["sum of the layers under the profiler: 0.0506 ms", "0: 0.0300 ms", "1: 0.0206 ms"]


@pytest.mark.parametrize(
    "times",
    [
        table(("m.a", "Conv 3x3", 1.0)),
        table(*((f"stage{i % 5}.block{i}.conv", f"Operator {i % 9}", 0.1 + i) for i in range(150))),
        table((".".join("abcdefghijkl"), "Conv 1x1", 1.0), ("x\x1b[31m\nevil", "<b>", 0.0001)),
        LayerTimes(source="TensorRT's profiler", batch_size=1, threads=None, calls=0, sum_ms=0.0, layers=()),
    ],
)
def test_it_draws(times: LayerTimes, tmp_path: Path) -> None:
    layers_picture(times, tmp_path / "layers.png", title="a title")
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.size[0] == 1400
        assert 150 < picture.size[1] < 600
        assert picture.getpixel((2, 2))[:3] == (255, 255, 255)  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == ["layers.png"]

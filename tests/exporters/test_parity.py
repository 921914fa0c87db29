from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.parity import Parity, check_parity, compare, compare_batches, explained

REFERENCE = np.array([[1.0, 2.0], [-4.0, 3.0]], dtype=np.float32)


class Scaled:
    """A stand-in for a model: its logits are the image's first pixels times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def infer(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"logits": feed["image"][:, 0, 0] * np.float32(self.factor)}

    def __str__(self) -> str:
        return f"times {self.factor}"


def test_numbers_by_hand() -> None:
    candidate = REFERENCE + np.array([[0.0, -1.5], [0.5, 0.0]], dtype=np.float32)
    # Largest difference 1.5, largest |reference| 4; 2.0 became 0.5, so the first image changes its class.
    assert compare(REFERENCE, candidate) == Parity(count=2, max_abs=1.5, max_rel=0.375, top1_agreement=0.5)


def test_equal_arrays_pass_at_any_tolerance() -> None:
    parity = compare(REFERENCE, REFERENCE.copy())
    assert parity == Parity(2, 0.0, 0.0, 1.0)
    assert parity.passes(rtol=0.0)


def test_the_difference_is_not_computed_in_the_arrays_own_precision() -> None:
    # 60000 - (-60000) overflows float16.
    reference = np.array([[60000.0]], dtype=np.float16)
    assert compare(reference, -reference).max_rel == 2.0


@pytest.mark.parametrize(("difference", "passes"), [(3.9e-4, True), (4.1e-4, False)])
def test_default_tolerance_is_1e_4_of_the_largest_logit(difference: float, passes: bool) -> None:
    reference = REFERENCE.astype(np.float64)
    assert compare(reference, reference + difference).passes() is passes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["reference", "candidate", "both"])
def test_a_value_that_is_not_finite_never_passes(value: float, side: str) -> None:
    broken = REFERENCE.copy()
    broken[0, 0] = value
    parity = compare(REFERENCE if side == "candidate" else broken, REFERENCE if side == "reference" else broken)
    assert not parity.passes(rtol=1e9)


def test_a_reference_of_zeros() -> None:
    zeros = np.zeros((2, 3))
    assert compare(zeros, zeros).passes()
    parity = compare(zeros, zeros + 1e-12)
    assert parity.max_rel == np.inf
    assert not parity.passes()


def test_logits_too_small_for_an_absolute_tolerance() -> None:
    assert not compare(REFERENCE * np.float32(1e-10), -REFERENCE * np.float32(1e-10)).passes()


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (4,)])
def test_shapes_that_differ(shape: tuple[int, ...]) -> None:
    with pytest.raises(ExportError) as caught:
        compare(REFERENCE, np.zeros(shape))
    assert str(shape) in caught.value.received
    assert "(2, 2)" in caught.value.received
    assert "same shape" in caught.value.expected
    assert caught.value.action.startswith("Check")


def test_check_parity_compares_all_batches_at_once(batches: list[NDArray[np.float32]]) -> None:
    parity = check_parity(Scaled(1.0), Scaled(1.0), batches)
    assert parity == Parity(10, 0.0, 0.0, 1.0)


def test_check_parity_refuses_with_its_numbers(batches: list[NDArray[np.float32]]) -> None:
    largest = max(float(images[:, 0, 0].max()) for images in batches)
    with pytest.raises(ExportError) as caught:
        check_parity(Scaled(1.0), Scaled(1.25), batches)
    received = caught.value.received
    assert received.startswith(f"times 1.25 differs from times 1.0 by up to {0.25 * largest:.3g}")
    assert "which is 0.25 of the largest logit" in received
    assert "100.0% of 10 images" in received
    assert caught.value.expected == "At most 0.0001 of the largest logit was expected."
    assert "Do not ship" in caught.value.action
    check_parity(Scaled(1.0), Scaled(1.25), batches, rtol=0.3)


def test_check_parity_of_nothing() -> None:
    with pytest.raises(ExportError, match="No images were given"):
        check_parity(Scaled(1.0), Scaled(1.0), [])


def maps(*rows: list[int]) -> NDArray[np.float32]:
    """Logits (N, 2, 1, W) whose largest is at the given class of each pixel."""
    classes = np.array(rows)
    return np.stack([classes == index for index in range(2)], axis=1)[:, :, None].astype(np.float32)


def test_class_maps_agree_by_their_pixels() -> None:
    parity = compare(maps([0, 1, 1, 0], [1, 1, 1, 1]), maps([0, 1, 1, 1], [1, 1, 1, 1]))
    assert parity == Parity(count=2, max_abs=1.0, max_rel=1.0, top1_agreement=0.875)
    assert compare_batches([(maps([0, 1]), maps([0, 1])), (maps([1, 1]), maps([1, 0]))]).top1_agreement == 0.75


def test_values_agree_by_what_they_explain() -> None:
    reference = np.array([[0.0], [2.0], [4.0]])
    candidate = reference + np.array([[1.0], [0.0], [-1.0]])
    assert compare(reference, candidate, outputs="values").top1_agreement == pytest.approx(1 - 2 / 8)
    assert compare(reference, candidate).top1_agreement == 1.0  # of one class there is no other
    halves = [(reference[:1], candidate[:1]), (reference[1:], candidate[1:])]
    assert compare_batches(halves, outputs="values") == compare(reference, candidate, outputs="values")


@pytest.mark.parametrize(
    ("reference", "candidate", "share"),
    [
        ([[3.0, 4.0]], [[3.0, 4.0]], 1.0),
        ([[3.0]], [[2.0]], 1 - 1 / 9),  # of one image the square itself is the scale
        ([[5.0], [5.0]], [[5.0], [4.0]], 1 - 1 / 50),  # a constant one as well
        ([[0.0], [0.0]], [[0.0], [0.0]], 1.0),
        ([[0.0], [0.0]], [[0.0], [1.0]], 0.0),
        ([[1.0], [-1.0]], [[-9.0], [9.0]], 0.0),  # never below
        ([[1.0], [2.0]], [[1.0], [np.inf]], 0.0),
    ],
)
def test_explained_at_its_edges(reference: list[list[float]], candidate: list[list[float]], share: float) -> None:
    assert explained(np.array(reference), np.array(candidate)) == pytest.approx(share)


def test_other_ranks_are_refused() -> None:
    with pytest.raises(ExportError, match="were compared with a reference of shape"):
        compare(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)))

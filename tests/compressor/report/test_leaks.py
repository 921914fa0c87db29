"""No image is in two sets, by the hashes that a run has recorded."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from compressor.errors import StageFailed
from compressor.report.leaks import checked_image_sets, records_of


def records(*names: str) -> list[dict[str, str]]:
    return records_of([f"{name}.png" for name in names], [digest(name) for name in names])


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def split_of(pool: list[dict[str, str]] | None = None, **parts: str) -> dict[str, Any]:
    files = [entry | {"part": part} for part, names in parts.items() for entry in records(*names)]
    return {"files": files} if pool is None else {"files": files, "pool": pool}


SPLIT = split_of(train="abc", select="d", evidence="ef")


def test_each_set_has_its_number_and_one_hash_of_all() -> None:
    judged = {"evidence": records("e", "f"), "eval": records("x", "y", "x")}
    sets = {one.name: one for one in checked_image_sets({**SPLIT, "pool": records("p", "q")}, judged)}
    assert {name: one.num_images for name, one in sets.items()} == {
        "train": 3,
        "select": 1,
        "pool": 2,
        "evidence": 2,
        "eval": 3,
    }
    lines = "".join(f"{value}\n" for value in sorted(map(digest, "abc")))
    assert sets["train"].sha256 == hashlib.sha256(lines.encode()).hexdigest()
    other = checked_image_sets(split_of(train="cab", select="d", evidence="ef"), {"evidence": records("e", "f")})
    assert [one.name for one in other] == ["train", "select", "evidence"]
    assert other[0] == sets["train"]  # names and their order do not count


@pytest.mark.parametrize(
    ("split", "judged", "names"),
    [
        (SPLIT, {"evidence": records("e"), "eval": records("x", "b")}, ("eval", "train")),
        (SPLIT, {"evidence": records("e"), "eval": records("d")}, ("eval", "select")),
        (SPLIT, {"evidence": records("e", "a")}, ("evidence", "train")),  # as if a wrong row had been judged
        (SPLIT, {"evidence": records("e"), "eval": records("e")}, ("eval", "evidence")),
        (split_of(records("p"), train="a"), {"evidence": [], "eval": records("p")}, ("eval", "pool")),
        (split_of(records("e"), train="a", evidence="e"), {"evidence": records("e")}, ("evidence", "pool")),
        (split_of(train="a", select="a"), {"evidence": []}, ("select", "train")),
    ],
)
def test_an_image_in_two_sets_is_refused(split: dict[str, Any], judged: dict[str, Any], names: tuple[str, str]) -> None:
    with pytest.raises(StageFailed) as caught:
        checked_image_sets(split, judged)
    first, second = names
    assert f"of the set '{first}' is byte for byte" in caught.value.received
    assert caught.value.received.endswith(f"of the set '{second}'.")
    assert ".png'" in caught.value.received
    assert "one set alone" in caught.value.expected
    assert caught.value.action.endswith(".")


def test_the_same_content_under_another_name_is_the_same_image() -> None:
    copy = [{"file": "holiday.png", "sha256": digest("b")}]
    with pytest.raises(StageFailed, match=r"'holiday\.png' .* 'b\.png'"):
        checked_image_sets(SPLIT, {"evidence": [], "eval": copy})

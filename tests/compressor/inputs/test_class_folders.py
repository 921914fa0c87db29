"""Folder names to class indices: by name, never by order."""

from __future__ import annotations

import unicodedata

from compressor.inputs.class_folders import match_class_folders


def test_exact_names_win() -> None:
    names = ("cat", "Cat", "dog")
    assert match_class_folders(["Cat", "cat", "dog"], names) == ({"Cat": 1, "cat": 0, "dog": 2}, False)


def test_case_spaces_and_underscores_do_not_matter() -> None:
    names = ("golden retriever", "T-Shirt")
    found, _ = match_class_folders(["Golden_Retriever", "tshirt", "other"], names)
    assert found == {"Golden_Retriever": 0, "tshirt": 1}


def test_two_classes_that_look_alike_are_not_chosen_between() -> None:
    assert match_class_folders(["A B"], ("a b", "a_b")) == ({}, False)


def test_accents_match_however_they_are_stored() -> None:
    assert match_class_folders([unicodedata.normalize("NFD", "café")], ("café", "bar"))[0].popitem()[1] == 0


def test_numbers_are_names_where_the_classes_are_numbers() -> None:
    names = tuple(str(number) for number in range(1, 12))
    found, by_number = match_class_folders(["1", "2", "10", "011", "12"], names)
    assert found == {"1": 0, "2": 1, "10": 9, "011": 10}
    assert not by_number


def test_numbers_are_indices_only_where_no_name_matches() -> None:
    names = tuple("abcdefghijkl")
    assert match_class_folders(["2", "10", "12", "x1"], names) == ({"2": 2, "10": 10}, True)
    assert match_class_folders(["2", "a"], names) == ({"a": 0}, False)


def test_nothing_is_guessed_from_order() -> None:
    assert match_class_folders(["one", "two"], ("cat", "dog")) == ({}, False)
    assert match_class_folders([], ("cat", "dog")) == ({}, False)

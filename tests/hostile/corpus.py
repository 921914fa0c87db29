"""Files and words that mean harm, each made by a function: no binary lies in the repository.

    entry = name, what it attacks, what it is given to, the exit codes that are right, and the function that makes it

`child` gives each to the real command in a process that watches itself, and `test_corpus` says what must hold of all.
The makers are in `teachers`, `trusted`, `documents`, `networks`, `pictures` and `runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

USAGE, INPUT, STAGE, UNREACHABLE = (2,), (4,), (5,), (6,)
DONE = (0, 1)
ENOUGH = "It was taken in"
TAKEN = (5,)  # harmless, or nothing of it is used: `child` ends a run after its samples, and says ENOUGH

SHORT = (
    *("--latency-warmup-s", "0.01", "--latency-window-s", "0.01", "--latency-max-s", "0.1"),
    *("--student", "width:0.5", "--method", "vanilla", "--precisions", "fp32", "--skip-robustness"),
    *("--target", "jetson"),  # it has a kit, and so a result that comes back
    *("--option", "student_steps=4", "--option", "student_batch_size=4"),
)
"""Settings with which a whole run takes as little as it can."""


@dataclass(frozen=True)
class Place:
    """Where an entry is made and tried.

    Attributes:
        folder: of the entry alone; what it makes lies in `folder / "given"`.
        good: what is the same for all: t.pt, weights.pt, model.onnx, few/ and run/, none of them to be changed.
        canary: a file that is not there; code of an entry that runs makes it.
    """

    folder: Path
    good: Path
    canary: Path

    @property
    def given(self) -> Path:
        return self.folder / "given"

    @property
    def out(self) -> Path:
        return self.folder / "out"


Made = Path | str | Sequence[str]
"""A file, words, or a whole command line."""


@dataclass(frozen=True)
class Entry:
    """One attack.

    Attributes:
        given: see COMMANDS.
        codes: exit codes that are right.
        says: words that the refusal holds.
    """

    name: str
    attacks: str
    given: str
    codes: tuple[int, ...]
    make: Callable[[Place], Made]
    says: str = ""


@dataclass(frozen=True)
class Command:
    """A command line, and the exit codes that are right."""

    words: tuple[str, ...]
    codes: tuple[int, ...]


def _run(place: Place, teacher: str, *more: str) -> tuple[str, ...]:
    return ("run", "--teacher", teacher, "--samples", f"{place.good}/few", "--out", f"{place.out}", *SHORT, *more)


def commands(entry: Entry, place: Place, made: Made) -> Iterator[Command]:
    """The command lines that an entry is given to."""
    words = list(map(str, made)) if isinstance(made, list | tuple) else []
    text = str(made)
    teacher, few, run = f"{place.good}/t.pt", f"{place.good}/few", f"{place.good}/run"
    refused_at_once = entry.attacks in ("what is no file", "names")
    match entry.given:
        case "--teacher":
            if entry.attacks in ("a card", "names"):
                yield Command(("inspect", text), entry.codes if refused_at_once else DONE)
            if entry.attacks != "code in a pickle":
                yield Command(("inspect", text, "--json"), entry.codes if refused_at_once else DONE)
            yield Command(_run(place, text), entry.codes)
        case "--trust-pickle":
            yield Command(_run(place, text, "--trust-pickle"), entry.codes)
        case "--card":
            yield Command(_run(place, f"{place.good}/weights.pt", "--card", text), entry.codes)
        case "--samples":
            yield Command((*_run(place, teacher), "--samples", text), entry.codes)
        case "--pool" | "--eval" | "--class-names" | "--code" | "--ssh-config":
            yield Command(_run(place, teacher, entry.given, text), entry.codes)
        case "--config":
            yield Command(("plan", "--config", text), entry.codes)
        case "--target":
            yield Command(("targets", "show", text), entry.codes)
        case "--board":
            yield Command(("plan", "--teacher", teacher, "--samples", few, f"--board={text}"), entry.codes)
        case "--gates" | "--gate" | "--baseline":
            yield Command(("gate", run, f"{entry.given}={text}"), entry.codes)
        case "--option":
            yield Command(("plan", "--teacher", teacher, "--samples", few, f"--option={text}"), entry.codes)
        case "--from":
            yield Command(("export", "--from", text, "--samples", few, "--out", f"{place.out}"), entry.codes)
        case "profile":
            yield Command(("profile", text, "--out", f"{place.out}"), entry.codes)
        case "report.json":
            yield Command(("gate", text), entry.codes)
            yield Command(("compare", text, run), entry.codes)
        case "words":
            yield Command(tuple(words), entry.codes)
        case other:
            raise ValueError(other)


def entries() -> tuple[Entry, ...]:
    """All of them, in the order of the modules that make them."""
    from hostile import documents, networks, pictures, runs, teachers, trusted

    modules = (teachers, trusted, documents, networks, pictures, runs)
    return tuple(entry for module in modules for entry in module.ENTRIES)

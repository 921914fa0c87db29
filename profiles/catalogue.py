"""From what the user calls a target to its profile.

A target is a public name (`t4`: a file of that name in `devices/`), an alias of one (`jetson`), or the path
of the user's own YAML file, each perhaps with a power mode (`jetson@15W`). A file may build on another profile
with `extends: <name or path>`: mappings merge key by key, everything else replaces. What carries a source is
replaced whole, so that no figure ever inherits the source of another one.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from profiles.errors import ProfileError
from profiles.plain_yaml import load_plain
from profiles.schema import Budget, DeviceProfile, Peaks, PowerMode, known_keys

DEVICES = Path(__file__).parent / "devices"
SUFFIXES = (".yaml", ".yml")
NOT_INHERITED = ("name", "title", "aliases")
MOST_PROBLEMS = 50  # more than anyone reads
MOST_BYTES = 2**20  # the longest that ships has 5 KiB; parsing a large file takes minutes

# The mapping in which each key of a profile belongs; other mappings hold figures and ranges of versions.
PLACES: dict[str, type[BaseModel]] = {"": DeviceProfile, "peaks": Peaks, "budget": Budget, "power_modes": PowerMode}


def target_names() -> tuple[str, ...]:
    """Public names of all devices that ship with the tool, sorted."""
    return tuple(sorted(path.stem for path in DEVICES.glob("*.yaml")))


def resolved_alias(name: str) -> str | None:
    """The public name behind an alias ('jetson' -> 'jetson-orin-nano-super'); None if `name` is no alias.

    A power mode stays: 'jetson@15W' -> 'jetson-orin-nano-super@15W'.
    """
    device, mode = _device_and_mode(name)
    found = _aliases(DEVICES).get(device)
    return f"{found}@{mode}" if found and mode is not None else found


def load_target(target: str) -> DeviceProfile:
    """The profile of a public name, of an alias or of a YAML file, in the power mode after an '@' where there is one.

    Raises:
        ProfileError: unknown name, unreadable file, `extends` in a circle, unknown keys or wrong values, a user's own
            file with the name of a device that ships, or no such power mode.
    """
    device, mode = _device_and_mode(target)
    path = _locate(device, Path())
    document = _resolve(path, ())
    document.setdefault("name", path.stem)
    document.setdefault("title", document["name"])
    document["extends"] = _shipped_root(path)
    try:
        profile = DeviceProfile.model_validate(document)
    except ValidationError as error:
        raise _refusal(path, error) from error
    _check_own_name(profile.name, path)
    return profile if mode is None else profile.in_power_mode(mode)


def _device_and_mode(target: str) -> tuple[str, str | None]:
    """'jetson@15W' -> ('jetson', '15W'); an '@' in a folder's or a file's name is no mode."""
    device, at, mode = target.rpartition("@")
    if not at or "/" in mode or "\\" in mode or mode.endswith(SUFFIXES):
        return target, None
    return device, mode


@cache
def _aliases(devices: Path) -> dict[str, str]:
    return {alias: path.stem for path in sorted(devices.glob("*.yaml")) for alias in _read(path).get("aliases", ())}


def _locate(target: str, folder: Path, asked_by: str = "") -> Path:
    """The file of a target; a relative path starts at `folder`, the place of the file that names it."""
    if "\0" not in target and (target.endswith(SUFFIXES) or "/" in target or "\\" in target):
        return folder / target
    aliases = _aliases(DEVICES)
    name = aliases.get(target, target)
    if name in target_names():
        return DEVICES / f"{name}.yaml"
    shown = [" or ".join([name, *(a for a in aliases if aliases[a] == name)]) for name in target_names()]
    near = difflib.get_close_matches(target.lower(), [*target_names(), *aliases], n=1)
    raise ProfileError(
        f"Unknown target '{target}'{asked_by}.",
        f"Available: {', '.join(shown)}.",
        (f"If you meant '{near[0]}', use that name" if near else "Use one of these names")
        + ", or give the path of your own profile such as ./board.yaml.",
    )


def _resolve(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """The document at `path` with everything that it extends merged in; `chain` holds the files that led
    here.
    """
    if _real(path) in map(_real, chain):
        raise ProfileError(
            f"The profile {chain[0]} extends itself: {' -> '.join(str(step) for step in (*chain, path))}.",
            "A chain of 'extends' must end in a profile that extends nothing.",
            "Remove 'extends' from one of these files.",
        )
    document = _read(path)
    parent = document.pop("extends", None)
    if parent is None:
        return document
    base = _resolve(_locate(str(parent), path.parent, f" in 'extends' of {path}"), (*chain, path))
    inherited = {key: value for key, value in base.items() if key not in NOT_INHERITED}
    if isinstance(sources := inherited.get("sources"), dict):
        # A setting that this file changes must not keep the source of the value that it replaces.
        inherited["sources"] = {key: text for key, text in sources.items() if key not in document}
    return _merge(inherited, document)


def _shipped_root(path: Path) -> str | None:
    """The first device that ships on a user's chain of `extends`; None for what ships, and for a chain without one."""
    own = path
    while not _ships(path):
        parent = _read(path).get("extends")
        if parent is None:
            return None
        path = _locate(str(parent), path.parent)
    return None if path == own else path.stem


def _ships(path: Path) -> bool:
    return _real(path).parent == _real(DEVICES)


def _real(path: Path) -> Path:
    """Links followed, as far as they lead anywhere; `Path.resolve` raises where they lead in a circle."""
    return Path(os.path.realpath(path))


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, new in changes.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and "source" not in old:
            new = _merge(old, new)
        merged[key] = new
    return merged


def _check_own_name(name: str, path: Path) -> None:
    """Published measurements, and results that boards send back, go by name: one name must not mean two devices."""
    shipped = _aliases(DEVICES).get(name, name)
    if shipped not in target_names() or _ships(path):
        return
    raise ProfileError(
        f"The profile {path} has the name '{name}', which is that of the {shipped} that ships.",
        "A profile of your own needs a name of its own, since measurements go by the name.",
        f"Rename the file, or give it another `name:`, such as 'our-{name}'.",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for, a device has no end
            raise ValueError("it is no file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ProfileError(
                f"The profile {path} is larger than {MOST_BYTES // 2**20} MiB.",
                "A profile is a YAML text file of a few KiB.",
                "Check the path, or take out what is no part of a profile.",
            )
        document = load_plain(content.decode("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: no UTF-8 text, or an impossible date or number
        reason = error.strerror if isinstance(error, OSError) else error
        raise ProfileError(
            f"The profile {path} cannot be read: {reason}.",
            "A profile is a YAML text file.",
            "Check the path; `compress targets list` shows the names that need no file.",
        ) from error
    except yaml.YAMLError as error:
        raise ProfileError(
            f"The profile {path} is not valid YAML: {_one_line(str(error))}.",
            "A profile is a YAML file of 'key: value' lines.",
            "Correct the file there; `compress targets show t4` shows a profile's content.",
        ) from error
    if not isinstance(document, dict):
        kind = "empty" if document is None else f"a {type(document).__name__}"
        raise ProfileError(
            f"The profile {path} is {kind}, not a mapping.",
            "A profile is a YAML file of 'key: value' lines such as 'extends: t4'.",
            "Write at least 'extends: <a target>' and the values that differ.",
        )
    return document


def _refusal(path: Path, error: ValidationError) -> ProfileError:
    """All that is wrong with a profile, in one error; unknown keys come with the nearest known one."""
    problems = []
    for issue in error.errors(include_url=False)[:MOST_PROBLEMS]:
        place = ".".join(str(part) for part in issue["loc"])
        if issue["type"] == "extra_forbidden":
            near = _nearest(issue["loc"])
            problems.append(f"unknown key '{place}'" + (f" (did you mean '{near}'?)" if near else ""))
        elif not place:  # checks across fields name their places themselves
            problems.append(issue["msg"].removeprefix("Value error, "))
        else:
            message = issue["msg"].removeprefix("Value error, ").removeprefix("Input ")
            received = "" if issue["type"] == "missing" else f" (received {_one_line(reprlib.repr(issue['input']))})"
            problems.append(f"{place}: {message[0].lower()}{message[1:]}{received}{_as_number(issue['input'])}")
    return ProfileError(
        f"The profile {path} is wrong: {'; '.join(problems)}.",
        "A profile holds the keys of profiles/schema.py, with positive figures in the unit of their name.",
        f"Correct {path}; `compress targets show t4` shows a complete example.",
    )


def _nearest(place: tuple[int | str, ...]) -> str | None:
    """The known key nearest to an unknown one; with dots where it belongs into another mapping."""
    key, parent = str(place[-1]), str(place[0]) if len(place) > 1 else ""
    near = difflib.get_close_matches(key, known_keys(), n=1)
    if not near:
        return None
    if near[0] != key and (parent not in PLACES or near[0] in PLACES[parent].model_fields):
        return near[0]
    found = (f"{holder}.{near[0]}".lstrip(".") for holder, model in PLACES.items() if near[0] in model.model_fields)
    return next(found, None)


def _as_number(value: object) -> str:
    """How to write a number that YAML has left as text: it needs a dot, and a sign in the exponent."""
    parts = re.fullmatch(r"([+-]?\d+)(\.\d*)?(?:[eE]([+-]?)(\d+))?", value) if isinstance(value, str) else None
    if parts is None:
        return ""
    whole, fraction, sign, exponent = parts.groups()
    spelled = f"{whole}{fraction or '.0'}e{sign or '+'}{exponent}" if exponent else f"{whole}{fraction or ''}"
    return f", which YAML reads as text: write {spelled} without quotes"


def _one_line(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."

"""What the distillation methods are, for `compress methods`, and whether a user's options fit one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from compressor.errors import UsageFault
from compressor.inputs.nearest import did_you_mean
from compressor.layout import columns
from compressor.method_choice import AUTO_METHOD
from compressor.methods import load_method, method_names

FITTED = "fitted"
"""Stands for a default that follows from effort, image size and device."""

IMAGES = {"nothing": "no image", "few": "images of the task", "pool": "images of the task or a pool"}


@dataclass(frozen=True)
class MethodSheet:
    """One method.

    Attributes:
        tasks: what a teacher may do for it.
        needs: the images that it cannot do without: nothing, few (of the task), or pool (any).
        uses: what it needs of the teacher.
        loss_terms: each loss term and what it trains.
        options: name, default (FITTED where there is no single one) and meaning.
    """

    name: str
    summary: str
    tasks: tuple[str, ...]
    needs: str
    uses: tuple[str, ...]
    loss_terms: Mapping[str, str]
    options: tuple[tuple[str, Any, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """The sheet as plain data."""
        options = [dict(zip(("name", "default", "description"), option, strict=True)) for option in self.options]
        return {**asdict(self), "loss_terms": dict(self.loss_terms), "options": options}


def method_sheets() -> tuple[MethodSheet, ...]:
    """Every method, from its own module."""
    return tuple(_sheet(name) for name in method_names())


def _sheet(name: str) -> MethodSheet:
    method = load_method(name)
    fitted = {
        option for device in ("cpu", "cuda") for option in method.defaults("standard", (3, 32, 32), device)
    }  # fmt: skip
    options = tuple(
        (option, FITTED if option in fitted else field.default, field.description or "")
        for option, field in method.Config.model_fields.items()
    )
    summary = (method.__doc__ or "").strip().splitlines()[0]
    return MethodSheet(name, summary, method.TASKS, method.NEEDS, method.USES, method.LOSS_TERMS, options)


def methods_text(sheets: Iterable[MethodSheet]) -> str:
    """All sheets for a terminal."""
    lines = ["--method auto, the default, chooses by the images that are there and the teacher.", ""]
    for sheet in sheets:
        uses = ", ".join(use.replace("_", " ") for use in sheet.uses)
        lines += [
            f"{sheet.name}: {sheet.summary}",
            f"  {', '.join(sheet.tasks)}; needs {IMAGES[sheet.needs]}, and the teacher's {uses}",
            "",
        ]
        rows = [("option", "default", ""), *((name, str(value), text) for name, value, text in sheet.options)]
        lines += [*columns(rows, indent=2), ""]
    lines.append(f"Set an option with --option NAME=VALUE. '{FITTED}' follows from effort, image size and device:")
    lines.append("`compress plan` shows its value once the teacher has been read.")
    return "\n".join(lines)


def check_method(name: str, options: Mapping[str, object]) -> None:
    """Refuse what is no method, and options that it does not have; for `auto`, those that no method has.

    Raises:
        UsageFault: names every problem.
    """
    if name == AUTO_METHOD:
        _check_for_any(options)
        return
    if name not in method_names():
        available = (AUTO_METHOD, *method_names())
        raise UsageFault(
            f"Unknown method {name!r}.",
            f"Available: {', '.join(available)}.",
            did_you_mean(name, available) or "`compress methods` describes them.",
        )
    settings = load_method(name).Config
    try:
        settings(**options)
    except ValidationError as error:
        issues = error.errors(include_url=False)
        unknown = [str(issue["loc"][0]) for issue in issues if issue["type"] == "extra_forbidden"]
        wrong = [
            f"{issue['loc'][0]} is {issue['input']!r} ({issue['msg'][0].lower()}{issue['msg'][1:]})"
            for issue in issues
            if issue["type"] != "extra_forbidden"
        ]
        problems = [*(f"there is no {option}" for option in unknown), *wrong]
        raise UsageFault(
            f"--option does not fit the method {name}: {'; '.join(problems)}.",
            f"Its options are {', '.join(settings.model_fields)}.",
            (did_you_mean(unknown[0], settings.model_fields) if unknown else "")
            or f"`compress methods` describes the options of {name}.",
        ) from error


def _check_for_any(options: Mapping[str, object]) -> None:
    """Which method it will be shows once the images are read; then the options are checked again."""
    for option, value in options.items():
        methods = [name for name in method_names() if option in load_method(name).Config.model_fields]
        if not methods:
            known = {name for method in method_names() for name in load_method(method).Config.model_fields}
            raise UsageFault(
                f"--option has {option}, which no method has.",
                "Options belong to a method, and --method auto chooses one when the images are read.",
                did_you_mean(option, known) or "`compress methods` lists the options of each.",
            )
        if not any(_fits(name, option, value) for name in methods):
            check_method(methods[0], {option: value})


def _fits(method: str, option: str, value: object) -> bool:
    try:
        load_method(method).Config(**{option: value})
    except ValidationError:
        return False
    return True

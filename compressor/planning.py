"""What a run would do, what is cached, and what every value is and where it comes from. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compressor.config import Resolved, get
from compressor.layout import columns
from compressor.method_choice import AUTO_METHOD
from compressor.pipeline import declare
from compressor.pipeline.choices import planned_search
from compressor.pipeline.run import Run, prepare
from compressor.progress import Reporter
from compressor.report.student_search import StudentSearch, candidate_lines, latency_kind, search_notes
from compressor.stage_files import read_facts
from compressor.stages import Status, plan
from profiles.catalogue import resolved_alias

Setting = tuple[str, object, str]  # name, value, origin


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        method: by name; "auto" before it is chosen.
        method_settings: every setting of the method; None before it and the teacher's input size are known.
        search: what `--student auto` comes to; None where the student is named.
        budget: the wall clock that the user gives; None: the whole schedule is trained.
    """

    target: str
    device: str
    run_folder: str
    stages: tuple[tuple[str, Status], ...]
    settings: tuple[Setting, ...]
    method: str
    method_settings: tuple[Setting, ...] | None
    search: StudentSearch | None
    budget: str | None

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data."""

        def records(settings: tuple[Setting, ...]) -> list[dict[str, object]]:
            return [{"name": name, "value": value, "origin": origin} for name, value, origin in settings]

        return {
            "target": self.target,
            "device": self.device,
            "run_folder": self.run_folder,
            "stages": [{"name": name, "state": found.state, "reason": found.reason} for name, found in self.stages],
            "settings": records(self.settings),
            "method": self.method,
            "method_settings": None if self.method_settings is None else records(self.method_settings),
            "student_search": None if self.search is None else self.search.model_dump(mode="json"),
        }

    def to_text(self) -> str:
        """The plan for a terminal."""
        rows = [("target", self.target), ("device", self.device), ("run folder", self.run_folder)]
        lines = [*columns(rows), ""]
        lines += columns([("stage", "would", "because"), *((n, s.state, s.reason) for n, s in self.stages)])
        if self.search is not None:
            lines += ["", *_search_lines(self.search)]
        lines += ["", *_table("setting", self.settings)]
        if self.method == AUTO_METHOD:
            lines += ["", "The method is chosen by the images and the teacher when they have been read."]
        elif self.method_settings is None:
            lines += ["", f"The settings of {self.method} itself follow once the teacher has been read."]
        else:
            lines += ["", *_table(f"setting of {self.method}", self.method_settings)]
        if self.budget is not None:
            lines += ["", f"Steps are timed when training starts, and cut to what --budget {self.budget} leaves then."]
        return "\n".join(lines)


def plan_run(resolved: Resolved, reporter: Reporter | None = None) -> Plan:
    """What `running.execute_run` would do now, with the same refusals.

    Raises:
        NoStudentFits: `--student auto` finds none within the limits.
    """
    run = prepare(resolved, reporter)
    stages = declare(run)
    statuses = plan(stages, run.config.out)
    alias = resolved_alias(run.config.target)
    cached = {stage.name for stage, status in zip(stages, statuses, strict=True) if status.state == "cached"}
    method = run.config.distill.method
    if method == AUTO_METHOD and "distill" in cached:
        method = read_facts(run.path("distill"))["method"]
    known = "teacher" in cached and method != AUTO_METHOD
    return Plan(
        target=run.target.title + (f" ({run.config.target} means {alias})" if alias else ""),
        device=run.device,
        run_folder=str(run.config.out),
        stages=tuple(zip((stage.name for stage in stages), statuses, strict=True)),
        settings=tuple((name, get(run.config, name), origin) for name, origin in resolved.origins.items()),
        method=method,
        method_settings=tuple(_method_settings(run, resolved, method)) if known else None,
        search=planned_search(run, cached),
        budget=None if "distill" in cached else run.config.budget,
    )


def _method_settings(run: Run, resolved: Resolved, method: str) -> Iterator[Setting]:
    card = run.card()
    fitted = run.fitting_settings(method, card)
    size = "x".join(str(side) for side in card.input_shape)
    for name, value in run.method_settings(method, card):
        given = resolved.origins.get(f"distill.options.{name}")
        yield (
            name,
            value,
            given or (f"{run.config.distill.effort}, {size}, {run.device}" if name in fitted else "default"),
        )


def _search_lines(search: StudentSearch) -> list[str]:
    header = ("student", "parameters", "MACs", f"size, {search.precision}", f"{latency_kind(search)}, ms", "")
    rows = [(row.spec, row.params, row.macs, row.size, row.latency, row.verdict) for row in candidate_lines(search)]
    said = [line for sentence in (search.reason, *search_notes(search)) for line in columns([(sentence,)])]
    return [*columns([header, *rows]), "", *said]


def _table(title: str, settings: tuple[Setting, ...]) -> list[str]:
    rows = [(name, _text(value), origin) for name, value, origin in settings]
    return columns([(title, "value", "from"), *rows])


def _text(value: object) -> str:
    match value:
        case None | {}:
            return "–"
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(str(item) for item in value)
        case _:
            return str(value)

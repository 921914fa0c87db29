"""`--budget`: how much of the wall clock is left for training, and the steps of the effort's schedule that fit into it.

    budget = what went before + the training's steps, and SPARE of them for a machine that slows down + the rest

Steps are timed once, when training starts, and the schedule is kept in the run: a resumed run trains what it began.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from compressor.deploy.calibration_images import MOST_REAL
from compressor.durations import seconds_of, written
from compressor.errors import UsageFault
from compressor.method_schedule import LITTLE, Schedule, whole_schedule
from compressor.method_speed import STEPS, Speed, measure_speed, steps_of
from compressor.methods import TrainingImages, load_method
from compressor.pipeline.run import Run
from compressor.report.text import duration, joined, percent, significant
from compressor.stages import Choices, started_fingerprint
from profiles.host import usable_cores

SPARE = 0.05  # of the training: clocks change by a tenth within minutes (docs/decisions.md)
PROBE_SHARE = 1 / 60  # of the budget, for each phase's steps; and
PROBE_S = 5.0  # seconds at most

# What follows the training, in CPU seconds of a small machine, for networks whose images take no time. They were
# counted stage by stage on digits and at 224 px (docs/effort.md).
END_S = 5.0  # the kit, the report, and the end of the command
EXPORT_S = 9.0  # both networks to ONNX, and the student for torch.export
FILE_S = 1.5  # an fp16 or int8 file
TIMED_S = 3.5  # a file with one number of threads: twelve sessions of fresh processes
# Passes over images.
TIMED_CALLS = 60  # of the file that is timed
CALIBRATION_PASSES = 6  # of a network over its images: int8's ranges, candidates and trials
CANDIDATES = 1024  # generated images, of which int8 is judged on those that the network is sure of

Plan = Mapping[str, Any]
"""How a run's time was planned when its training started, as plain values; `compressor.report.schema.TimeBudget`."""


def settings_within_budget(
    run: Run, method: str, images: TrainingImages, settings: BaseModel, precision: str
) -> tuple[BaseModel, Plan | None]:
    """The settings with as many steps as fit, and the plan behind them; None where the user gives no budget.

    Raises:
        UsageFault: not even the shortest training that is worth its name fits.
    """
    budget = run.config.budget
    if budget is None:
        return settings, None
    # Whatever else the plan depends on is in the fingerprint of the stage that is running.
    key = f"steps within {budget} for {started_fingerprint(run.path('distill'))[:12]}"
    plan: Plan = Choices(run.config.out).remember(key, lambda: _plan(run, method, images, settings, precision))
    steps = {f"{phase['name']}{STEPS}": phase["steps"] for phase in plan["phases"]}
    return load_method(method).Config(**{**settings.model_dump(), **steps}), plan


def _plan(run: Run, method: str, images: TrainingImages, settings: BaseModel, precision: str) -> dict[str, Any]:
    """Time the method's steps, and cut its schedule to what is left."""
    config, teacher = run.config, run.teacher()
    total = seconds_of(str(config.budget))
    run.reporter.note("timing a few steps of each phase, for --budget")
    speed = measure_speed(
        method,
        teacher,
        run.backbone(),
        images,
        settings,
        most_seconds=min(PROBE_S, PROBE_SHARE * total),
        device=run.device,
        precision=precision,
        should_stop=run.stop.asked,
    )
    before, after = run.seconds(), _after(run, speed)
    named = {name.removesuffix(STEPS) for name in config.distill.options if name.endswith(STEPS)}
    whole = whole_schedule(steps_of(settings), named)
    other = before + speed.setup_seconds + after
    step_seconds = {phase: step.seconds for phase, step in speed.steps.items()}
    schedule = whole.within((total - other) / (1.0 + SPARE), step_seconds)
    least = whole.at_least(steps_of(load_method(method).Config(**run.fitting_settings(method, run.card(), "quick"))))
    if schedule.factor < least.factor:
        needed = other + (1.0 + SPARE) * speed.seconds_of(least.steps)
        raise _too_little(run, least, before, speed.setup_seconds + after, needed)
    return {
        "budget_s": total,
        "before_s": before,
        "training_s": speed.seconds_of(schedule.steps),
        "after_s": speed.setup_seconds + after,
        "factor": schedule.factor,
        "phases": [
            {
                "name": phase,
                "whole": count,
                "steps": schedule.steps[phase],
                "fixed": phase in whole.fixed,
                "step_s": step_seconds.get(phase, 0.0),
            }
            for phase, count in whole.whole.items()
        ],
    }


def _too_little(run: Run, least: Schedule, before: float, after: float, needed: float) -> UsageFault:
    budget = run.config.budget
    unit = 10 if needed < 600 else 60
    enough = written(math.ceil(1.02 * needed / unit) * unit)
    steps = joined(f"{count:,} of phase {phase}" for phase, count in least.steps.items() if count)
    return UsageFault(
        f"--budget {budget} leaves no time to train: {duration(before)} have gone by, and exporting, measuring and "
        f"reporting will take about {duration(after)}.",
        f"The least that is trained are {steps} steps.",
        f"Give --budget {enough}; what was done so far is kept, and makes the next run shorter.",
    )


def _after(run: Run, speed: Speed) -> float:
    config, samples = run.config, run.samples()
    precisions = config.precision.precisions or run.target.precisions
    generated = config.precision.calibration_images + CANDIDATES if speed.makes_images else 0
    return seconds_after_training(
        num_files=2 * len(precisions),
        num_timed=2 * (1 if run.target.runtime == "tensorrt" else len(precisions)),
        num_threads=1 if config.latency.threads is not None or usable_cores() == 1 else 2,
        num_calibration=min(len(samples["train"]), MOST_REAL) + generated if "int8" in precisions else 0,
        num_judged=len(samples["evidence"]) + _num_files(config.report.eval),
        cpu_query_seconds=speed.cpu_query_seconds,
        most_latency_s=config.latency.max_s,
    )


def seconds_after_training(
    *,
    num_files: int,
    num_timed: int,
    num_threads: int,
    num_calibration: int,
    num_judged: int,
    cpu_query_seconds: float,
    most_latency_s: float,
) -> float:
    """An estimate of all stages behind the training; the report says beside it what they took.

    Engines that TensorRT builds on this machine, and what a board does, are not in it, nor a long search for an int8
    file that keeps the answers.

    Args:
        num_files: of student and teacher in every precision.
        num_timed: of these, the ones that this machine times, each with `num_threads` settings.
        num_calibration: images that int8 is calibrated and chosen on.
        num_judged: images that every file is judged on.
        cpu_query_seconds: of the teacher for one image. Both networks are taken to be as slow.
        most_latency_s: after which the timing of a file ends.
    """
    timing = min(most_latency_s, TIMED_S + TIMED_CALLS * cpu_query_seconds)
    passes = 2 * CALIBRATION_PASSES * num_calibration + num_files * num_judged
    return END_S + EXPORT_S + FILE_S * (num_files - 2) + num_timed * num_threads * timing + passes * cpu_query_seconds


def _num_files(folder: Path | None) -> int:
    return 0 if folder is None else sum(len(files) for _, _, files in os.walk(folder, followlinks=True))


# --- in words ---------------------------------------------------------------------------------------------------------


def schedule_in_words(effort: str, steps: Mapping[str, int], plan: Plan | None) -> str:
    """For the terminal, when training starts: how many steps it has, and with a budget, of how many."""
    if plan is None:
        return f"effort {effort}: {joined(f'{count:,} {phase}' for phase, count in steps.items())} steps"
    left = f"about {duration(plan['training_s'])} of training and {duration(plan['after_s'])} behind it"
    if fixed := [f"{phase['steps']:,} {phase['name']}" for phase in plan["phases"] if phase["fixed"]]:
        left += f"; as --option has them: {joined(fixed)} steps"
    if not (cut := _cut(plan)):
        return f"the whole schedule of effort {effort} fits into the budget: {left}"
    phases = joined(f"{phase['steps']:,} of {phase['whole']:,} {phase['name']}" for phase in cut)
    return f"{percent(plan['factor'])} of effort {effort} fits into the budget: {phases} steps; {left}"


def _cut(plan: Plan) -> list[Mapping[str, Any]]:
    return [phase for phase in plan["phases"] if phase["steps"] < phase["whole"]]


def plan_choices(plan: Plan) -> list[dict[str, str]]:
    """What was cut, as the report lists what the tool has chosen."""
    budget = written(plan["budget_s"])
    return [
        {
            "name": f"{phase['name']}{STEPS}",
            "value": f"{phase['steps']:,} of {phase['whole']:,}",
            "reason": f"--budget {budget}; a step takes {significant(1000 * phase['step_s'])} ms",
        }
        for phase in _cut(plan)
    ]


def plan_warnings(plan: Plan, effort: str) -> list[str]:
    """Where the student is not what its effort promises, or the budget cannot hold."""
    warnings, budget = [], written(plan["budget_s"])
    if plan["factor"] < LITTLE:
        warnings.append(
            f"--budget {budget} leaves {percent(plan['factor'])} of effort {effort}'s steps, so the student is "
            "trained far less than that effort promises; give it more time, or a smaller student."
        )
    planned = plan["before_s"] + plan["training_s"] + plan["after_s"]
    if planned > plan["budget_s"]:
        warnings.append(
            f"--budget {budget} cuts nothing, because --option fixes the steps of every phase: the run will take about "
            f"{duration(planned)}."
        )
    return warnings

"""Running the stages in their order, and giving whatever ends them its three sentences and its exit code."""

from __future__ import annotations

import errno
import platform
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from compressor import __version__
from compressor.config import Resolved, RunConfig, resolve, save_resolved
from compressor.deploy.board_results import (
    StaleResult,
    accept_result,
    check_result,
    failures_of,
    latencies_of,
    merged_result,
    parities_of,
)
from compressor.errors import StageFailed, UsageFault
from compressor.gates.asked import Asked, load_asked, save_asked, with_gates
from compressor.inputs.card import TeacherCard
from compressor.interruption import interruptible, stopped
from compressor.pipeline import declare
from compressor.pipeline.run import TARGET, Run, limits_for, prepare
from compressor.progress import Reporter
from compressor.provenance.manifest import MANIFEST, has_settings_of, run_manifest, write_manifest
from compressor.provenance.sbom import SBOM, sbom_json
from compressor.report.assemble import build_report
from compressor.report.rendering import RENDERINGS, rendered
from compressor.report.schema import Environment, Report, StageRecord, TimeSplit, read_report, write_report
from compressor.report.time_split import time_split
from compressor.stage_files import read_facts
from compressor.stages import (
    Refusal,
    Stage,
    StageResult,
    Status,
    atomic_write_text,
    create_run_folder,
    edited_outputs,
    exclusive,
    execute,
    recorded_fingerprint,
    writable,
)
from compressor.torchrun import ALONE, Ranks
from exporters.errors import ExportError
from profiles.board_result import BoardResult
from profiles.catalogue import resolved_alias
from profiles.errors import ToolError
from profiles.host import host_name
from profiles.remote import run_on_board
from profiles.schema import DeviceProfile

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors keeps the system's words and loses its number.
NO_SPACE_WORDS = re.compile(r"No space left|File too large|quota exceeded", re.I)


def execute_run(
    resolved: Resolved,
    reporter: Reporter,
    *,
    command: str,
    ranks: Ranks = ALONE,
    started: float | None = None,
) -> Report:
    """Run or resume all stages and write the report, or keep the one that is there if nothing changed.

    Args:
        command: the shell line that makes this run again, for the report.
        ranks: the processes that train it, of which this is the first.
        started: when the user gave it, on the monotonic clock; None: now.

    Raises:
        ToolError, Refusal: with the exit code of what happened; finished stages and an earlier report are kept.
    """
    with interruptible() as stop:
        run = prepare(resolved, reporter, stop, ranks)
        run = run if started is None else replace(run, started=started)
        folder = run.config.out
        if alias := resolved_alias(run.config.target):
            reporter.note(f"target: {run.config.target} means {alias}")
        create_run_folder(folder)
        with exclusive(folder):
            with writable(folder):
                save_resolved(resolved, folder / "config.yaml")
                atomic_write_text(folder / TARGET, run.target.model_dump_json(indent=2) + "\n")
                save_asked(run.asked, folder)
            had_report = (folder / "report.json").exists()
            try:
                with reporter.folds():
                    results = [_run_stage(stage, run) for stage in declare(run)]
                with _as_stage_errors("report", folder):
                    merged = _merged(folder, run.target, reporter)
                    report = _report(run, results, command, merged)
            except (ToolError, Refusal, KeyboardInterrupt):
                if had_report:
                    reporter.warn(f"{folder / 'report.md'} is still that of the earlier run.")
                raise
            if run.config.board is None or merged is not None:
                return report
            measure_on_board(run, run.config.board)
            with _as_stage_errors("report", folder):
                report = _built(run.config, run.target, _merged(folder, run.target, reporter), report, run.asked)
                _write(report, folder)
            return report


def _run_stage(stage: Stage, run: Run) -> StageResult:
    if run.stop.asked():
        raise stopped(f"The run was stopped before stage {stage.name}.")

    def announce(name: str, status: Status) -> None:
        run.reporter.stage(name, status.state, status.reason)

    with _as_stage_errors(stage.name, run.config.out):
        result = execute(stage, run.config.out, announce)
    run.path(stage.name, "error.log").unlink(missing_ok=True)
    if result.state != "cached":  # those of cached stages stand in the report
        for warning in read_facts(run.path(stage.name)).get("warnings", ()):
            run.reporter.warn(warning)
    return result


def _report(run: Run, results: Sequence[StageResult], command: str, merged: BoardResult | None) -> Report:
    """report.json and report.md at the top of the run folder; a run in which nothing changed keeps what is there."""
    path = run.config.out / "report.json"
    earlier = _earlier(path)
    fingerprints = [result.fingerprint for result in results]
    if earlier is not None and _still_holds(earlier, fingerprints, run, merged):
        return earlier
    stages = tuple(
        StageRecord(name=r.name, cached=r.state == "cached", seconds=r.seconds, fingerprint=r.fingerprint)
        for r in results
    )
    outside_s = run.seconds() - sum(result.seconds for result in results if result.state != "cached")
    time = time_split(stages, read_facts(run.path("distill")), max(0.0, outside_s))
    origin = Origin(stages, command, time, _environment(run))
    report = _built(run.config, run.target, merged, origin, run.asked)
    if path.exists():
        run.reporter.warn("This report replaces the earlier one: settings, inputs or the machine changed.")
    _write(report, run.config.out)
    return report


@dataclass(frozen=True)
class Origin:
    """What a report says of the run that made its facts; a report itself has the same."""

    stages: tuple[StageRecord, ...]
    command: str
    time: TimeSplit | None
    environment: Environment


def measure_on_board(run: Run, board: str) -> None:
    """Send the kit over the user's ssh and merge what comes back. The report without it is written already.

    Raises:
        UsageFault: the target is this machine, or leaves no kit.
        BoardError, StaleResult: the board is not there, is another, or failed.
    """
    archive = run.path("kit", "kit.tar.gz")
    if not archive.exists():
        raise UsageFault(
            f"--board {board} was given for {run.target.title}, for which there is no kit.",
            "A kit is made for a target that is not the machine that runs this.",
            "Leave --board out, or name the device's profile with --target.",
        )
    run.reporter.note(f"sending the kit to {board}; a board may build for several minutes")
    with TemporaryDirectory() as folder:
        result = run_on_board(
            board,
            archive,
            result=Path(folder) / "result.json",
            timeout_s=run.config.board_timeout_s,
            ssh_config=run.config.ssh_config,
            observer=lambda line: run.reporter.note(f"{board}: {line}"),
        )
        accept_result(run.config.out, result)
    run.reporter.note(f"the result of {board} is merged")


def merge_result(folder: Path, path: Path, reporter: Reporter) -> Report:
    """Bring what a kit measured on its device into the report of its run. Needs neither the teacher nor the samples.

    Raises:
        UsageFault: the folder holds no finished run.
        NotWritable: it cannot be written.
        StaleResult, BoardResultError: the file is no result of this run's kit; nothing has changed then.
    """
    earlier = _earlier(folder / "report.json")
    if earlier is None:
        raise UsageFault(
            f"{folder} holds no finished run of this version.",
            "A run folder with its report.json was expected.",
            "Give the folder of a run; `compress run` with the same --out finishes or renews it.",
        )
    with exclusive(folder), writable(folder):
        _check_whole(folder, earlier)
        config, target = _kept(folder)
        report = _built(config, target, check_result(folder, path), earlier, load_asked(folder))
        accept_result(folder, path)
        _write(report, folder)
    reporter.note(f"{folder / 'report.md'} has the rows of {target.title}")
    return report


def rebuilt_report(folder: Path, report: Report) -> Report:
    """The same report from what lies in its run folder now; only its start, name, times and machine are its own word.

    Raises:
        OSError, KeyError, ValueError: something that it was made from is gone or was edited.
        ToolError: the configuration, the gates or a merged result are no longer of this run.
    """
    config, target = _kept(folder)
    made = _built(config, target, merged_result(folder, target.name), report, load_asked(folder))
    return made.model_copy(update={"created": report.created, "run_name": report.run_name})


def _kept(folder: Path) -> tuple[RunConfig, DeviceProfile]:
    """Settings and target of a run, from its folder, wherever that lies now."""
    config = resolve({}, folder / "config.yaml").config.model_copy(update={"out": folder})
    try:
        return config, DeviceProfile.model_validate_json((folder / TARGET).read_bytes())
    except (OSError, ValueError) as error:
        why = str(error).partition("[type=")[0]  # pydantic goes on about itself
        raise UsageFault(
            f"{folder / TARGET} cannot be read: {' '.join(why.split())[:200]}.",
            "The file that the run wrote was expected.",
            "Run the run's own command again, which writes it anew.",
        ) from error


def _check_whole(folder: Path, report: Report) -> None:
    """Refuse a run that went on, or lost a stage, since its report: its files and the report are of two students."""
    changed = [
        stage.name
        for stage in report.stages
        if recorded_fingerprint(folder / stage.name) != stage.fingerprint or edited_outputs(folder / stage.name)
    ]
    if changed:
        raise StaleResult(
            f"{folder} has other stages than its report: {', '.join(changed)}.",
            "A run that ended with its report was expected.",
            "Finish it with its own `compress run` command, then take its kit to the device.",
        )


def _earlier(path: Path) -> Report | None:
    """The report that is there, if it is of this version and rendered."""
    try:
        report = read_report(path)
    except (OSError, ValueError):
        return None
    whole = all((path.parent / name).exists() for name in (*RENDERINGS, SBOM, MANIFEST))
    return report if report.tool_version == __version__ and whole else None


def _still_holds(report: Report, fingerprints: Sequence[str], run: Run, merged: BoardResult | None) -> bool:
    """Whether a report is of stages with these fingerprints, of these settings, limits and gates, and of this result
    from the target.
    """
    latencies = {} if merged is None else latencies_of(merged, run.target)
    held = {
        f"{variant.model}.{variant.precision}": variant.latency_target
        for variant in report.variants
        if variant.latency_target is not None and variant.latency_target.origin == "merged"
    }
    limits = limits_for(run.config, run.target)
    return (
        [stage.fingerprint for stage in report.stages] == list(fingerprints)
        and held == latencies
        and report.limits is not None
        and report.limits.model_dump() == asdict(limits)
        and with_gates(report, run.asked) == report
        and has_settings_of(run.config.out)
    )


def _merged(folder: Path, target: DeviceProfile, reporter: Reporter) -> BoardResult | None:
    """What the target itself has sent back for these very files; a result of earlier files is passed over."""
    try:
        return merged_result(folder, target.name)
    except ToolError as error:
        reporter.warn(f"The result that was merged earlier is left out: {error.received}")
        return None


def _built(
    config: RunConfig, target: DeviceProfile, merged: BoardResult | None, origin: Origin | Report, asked: Asked
) -> Report:
    """The report from what the stages left in the run folder and what the target sent back, judged by its gates."""
    facts = {stage.name: read_facts(config.out / stage.name) for stage in origin.stages}
    report = build_report(
        facts=facts,
        card=TeacherCard.model_validate_json((config.out / "teacher" / "card.json").read_text(encoding="utf-8")),
        student_spec=facts["student"].get("spec", config.student.spec),
        method=facts["distill"].get("method", config.distill.method),
        effort=config.distill.effort,
        seed=config.seed,
        target=target,
        stages=[(stage.name, stage.cached, stage.seconds, stage.fingerprint) for stage in origin.stages],
        run_folder=config.out,
        command=origin.command,
        created=datetime.now(UTC),
        environment=origin.environment.model_dump(),
        time=origin.time,
        limits=limits_for(config, target),
        merged={} if merged is None else latencies_of(merged, target),
        failures={} if merged is None else failures_of(merged),
        parities={} if merged is None else parities_of(merged),
    )
    return with_gates(report, asked)


def _write(report: Report, folder: Path) -> None:
    """report.json, what is made of it, and last the manifest, which has the hashes of all others."""
    write_report(report, folder / "report.json")
    for name, text in rendered(report, folder).items():
        atomic_write_text(folder / name, text)
    atomic_write_text(folder / SBOM, sbom_json(report))
    write_manifest(run_manifest(report, folder), folder / MANIFEST)


def _environment(run: Run) -> Environment:
    import onnx
    import onnxruntime

    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
        onnx=onnx.__version__,
        os=platform.platform(),
        cpu=host_name(),
        gpu=torch.cuda.get_device_name() if run.device == "cuda" else None,
    )


@contextmanager
def _as_stage_errors(stage: str, run_folder: Path) -> Iterator[None]:
    """Turn what ends a stage into StageFailed, unless it already says what to do.

    The traceback of anything unforeseen goes to `<stage>/error.log`.
    """
    try:
        yield
    except ExportError as error:
        raise StageFailed(f"Stage {stage} failed: {error.received}", error.expected, error.action) from error
    except (ToolError, Refusal):
        raise
    except torch.OutOfMemoryError as error:
        raise StageFailed(
            f"Stage {stage} ran out of GPU memory.",
            "Batches are divided where the method's terms allow it; this one could not be, or was down to two images.",
            "Use --effort quick, or smaller batches such as --option student_batch_size=64 or generator_batch_size=64.",
        ) from error
    except Exception as error:
        if _disk_is_full(error):
            raise StageFailed(
                f"Stage {stage} could not write its files to {run_folder}: no space is left.",
                "Room for the stage's outputs and checkpoints was expected; nothing half-written is left.",
                "Make room, then run the same command again: finished stages and checkpoints are kept.",
            ) from error
        raise _unforeseen(stage, run_folder, error) from error


def _unforeseen(stage: str, run_folder: Path, error: Exception) -> StageFailed:
    log = run_folder / stage / "error.log"
    where = f"The traceback is in {log}."
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError as unwritten:
        where = f"The traceback could not be written to {log} ({unwritten.strerror})."
    said = " ".join(str(error).split()).rstrip(".")
    return StageFailed(
        f"Stage {stage} failed: {type(error).__name__}: {said}.",
        where,
        "Finished stages are kept. If the traceback does not tell what to change, report it with `compress doctor`.",
    )


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if (isinstance(error, OSError) and error.errno in NO_SPACE) or NO_SPACE_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False

"""Running the stages in their order, and giving whatever ends them its three sentences and its exit code."""

from __future__ import annotations

import errno
import platform
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch

from compressor import __version__
from compressor.config import Resolved, save_resolved
from compressor.errors import StageFailed, UsageFault
from compressor.interruption import interruptible, stopped
from compressor.pipeline import Run, declare, prepare
from compressor.progress import Reporter
from compressor.report.assemble import build_report
from compressor.report.markdown import report_markdown
from compressor.report.schema import Report, read_report, write_report
from compressor.stage_files import read_facts
from compressor.stages import (
    Refusal,
    Stage,
    StageResult,
    Status,
    atomic_write_text,
    create_run_folder,
    exclusive,
    execute,
)
from exporters.errors import ExportError
from profiles.catalogue import resolved_alias
from profiles.errors import ToolError
from profiles.host import host_name

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors keeps the system's words and loses its number; torch's archives only notice that a write came up short.
NO_SPACE_WORDS = re.compile(
    r"No space left|File too large|quota exceeded|PytorchStreamWriter failed|inline_container.*unexpected pos", re.I
)


def execute_run(resolved: Resolved, reporter: Reporter, *, command: str) -> Report:
    """Run or resume all stages and write the report, or keep the one that is there if nothing changed.

    Args:
        command: the shell line that makes this run again, for the report.

    Raises:
        ToolError, Refusal: with the exit code of what happened; finished stages and an earlier report are kept.
    """
    with interruptible() as stop:
        run = prepare(resolved, reporter, stop)
        folder = run.config.out
        if alias := resolved_alias(run.config.target):
            reporter.note(f"target: {run.config.target} means {alias}")
        with _writable(folder):
            create_run_folder(folder)
        with exclusive(folder):
            with _writable(folder):
                save_resolved(resolved, folder / "config.yaml")
            had_report = (folder / "report.json").exists()
            try:
                results = [_run_stage(stage, run) for stage in declare(run)]
                with _as_stage_errors("report", folder):
                    return _report(run, results, command)
            except (ToolError, Refusal, KeyboardInterrupt):
                if had_report:
                    reporter.warn(f"{folder / 'report.md'} is still that of the earlier run.")
                raise


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageFault(
            f"The run folder {folder} cannot be written: {error.strerror or error}.",
            "A run needs a folder that it may write to, on a disk with room.",
            "Name another folder with --out.",
        ) from error


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


def _report(run: Run, results: Sequence[StageResult], command: str) -> Report:
    """report.json and report.md at the top of the run folder; a run in which nothing changed keeps what is there."""
    path = run.config.out / "report.json"
    report = _known_report(path, [result.fingerprint for result in results])
    if report is None:
        report = build_report(
            facts={result.name: read_facts(run.path(result.name)) for result in results},
            card=run.card(),
            student_spec=run.config.student.spec,
            method=run.config.distill.method,
            effort=run.config.distill.effort,
            seed=run.config.seed,
            target=run.target,
            stages=[(r.name, r.state == "cached", r.seconds, r.fingerprint) for r in results],
            run_folder=run.config.out,
            command=command,
            created=datetime.now(UTC),
            environment=_environment(run),
        )
        if path.exists():
            run.reporter.warn("This report replaces the earlier one: settings, inputs or the machine changed.")
        write_report(report, path)
        atomic_write_text(path.with_suffix(".md"), report_markdown(report))
    return report


def _known_report(path: Path, fingerprints: Sequence[str]) -> Report | None:
    """The report that is there, if it is of this version and of stages with these fingerprints, and rendered."""
    try:
        report = read_report(path)
    except (OSError, ValueError):
        return None
    same = report.tool_version == __version__ and [stage.fingerprint for stage in report.stages] == list(fingerprints)
    return report if same and path.with_suffix(".md").exists() else None


def _environment(run: Run) -> dict[str, str | None]:
    import onnxruntime

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "os": platform.platform(),
        "cpu": host_name(),
        "gpu": torch.cuda.get_device_name() if run.device == "cuda" else None,
    }


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
            "The method's batches and networks have to fit.",
            "Use --effort quick, or smaller batches such as --option student_batch_size=64.",
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

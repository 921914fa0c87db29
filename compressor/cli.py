"""The command line. It parses, calls and maps every outcome to its documented exit code; it computes nothing.

torch is imported only inside commands that need it, so that `compress --help` answers at once.
"""

from __future__ import annotations

import errno
import inspect
import io
import json
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from compressor import __version__
from compressor.config import FIELDS, FLAGS, REPEATED, Resolved, get, holds_path, resolve
from compressor.deprecated import current_words
from compressor.errors import (
    EXIT_BUG,
    EXIT_GATE_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Interrupted,
    UsageFault,
    came_of_interrupt,
    exit_code_of,
)
from compressor.layout import columns
from compressor.report.untrusted import printable, without_commands, without_controls
from compressor.stages import Refusal
from compressor.torchrun import ALONE, Ranks, start, starts_processes, this_process
from profiles.errors import ToolError

if TYPE_CHECKING:
    from compressor.report.export_schema import Export
    from compressor.report.schema import Report
    from compressor.report.verdicts import Decision

# The base of what Typer raises for a wrong command line; it has no public name.
WrongUsage: type[Exception] = typer.BadParameter.__bases__[0]

SENTENCE_LIMIT = 2_000
NAME_SHOWN = 200

# What a first run needs stands first in --help.
FIRST = (
    *("teacher.file", "samples.folder", "samples.pool", "target", "out"),
    *("student.spec", "distill.method", "distill.effort", "budget"),
)

app = typer.Typer(
    name="compress",
    help="Distil a private vision model into a small student for an edge device, from a few images, without its data.",
    epilog="Start with `compress demo`, or: compress run --teacher t.pt --samples ./few --target jetson",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
targets_app = typer.Typer(help="Devices that a student can be made for.", rich_markup_mode=None)
app.add_typer(targets_app, name="targets")

JsonFlag = Annotated[bool, typer.Option("--json", help="print the result as one line of JSON on stdout")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="no progress; warnings and the result only")]
FailOnFlag = Annotated[
    Literal["fail", "warn"], typer.Option("--fail-on", help="the mildest decision that ends with exit code 1")
]
ExitZeroFlag = Annotated[bool, typer.Option("--exit-zero", help="end with 0 whatever limits and gates say")]
ConfigFlag = Annotated[
    Path | None, typer.Option("--config", metavar="PATH", help="YAML file of settings; flags win over it")
]


def main() -> None:
    """Entry point: run the command line of this process and exit with its documented code."""
    _speak_utf8()
    # OpenMP threads that spin while they wait slow a busy machine down many times over. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # ONNX Runtime keeps an identity of the machine and a queue of events in the user's home. Read when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "×" gets "?" and not a traceback
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, also while something is imported
    ranks = this_process()
    if ranks.rank > 0:  # what there is to say, the first process says
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    code = invoke(sys.argv[1:])
    ranks.leave(code)
    sys.exit(code)


def _speak_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding: paths and names need not fit into it,
    and torch takes no other paths."""
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def invoke(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; only a bug of ours shows a traceback."""
    words, warnings = current_words(arguments)
    _warn(warnings)
    try:
        code = app(words, prog_name="compress", standalone_mode=False, obj=tuple(words))
    except (Exception, KeyboardInterrupt) as error:
        return _told(error)
    return code if isinstance(code, int) else EXIT_OK


def _told(error: Exception | KeyboardInterrupt) -> int:
    """Say on stderr what ended a command; returns its exit code."""
    fault: BaseException | None = error
    if isinstance(error, WrongUsage):
        fault = _usage_fault(error)
    elif not isinstance(error, ToolError | Refusal):
        fault = _path_fault(error)
    if isinstance(error, typer.Abort) or (came_of_interrupt(error) and not isinstance(error, Interrupted)):
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    if isinstance(fault, ToolError | Refusal):
        _refuse(fault.received, fault.expected, fault.action)
        return exit_code_of(fault)
    traceback.print_exception(error)
    sys.stderr.write(
        "This is a bug in compress. Nothing was released. "
        "Please report it with the lines above and the output of `compress doctor`.\n"
    )
    return EXIT_BUG


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        sys.stderr.write(f"  ! {without_commands(printable(sentence, SENTENCE_LIMIT))}\n")


def _refuse(received: str, expected: str, action: str) -> None:
    # They may quote names from a checkpoint or a folder, and with them an escape sequence.
    lines = [without_commands(printable(sentence, SENTENCE_LIMIT)) for sentence in (received, expected, action)]
    sys.stderr.write("error: {}\n       {}\n       {}\n".format(*lines))


def _path_fault(error: BaseException) -> UsageFault | None:
    """What the system says of a path that no file can have, wherever it was first looked at."""
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        named, why = str(error.filename)[:NAME_SHOWN], error.strerror
    elif isinstance(error, ValueError) and "null byte" in str(error):
        named, why = "with the character NUL", str(error)
    else:
        return None
    return UsageFault(
        f"The path {named} cannot be used: {why}.",
        "A path of at most 4,095 letters was expected, with at most 255 in each part, and without links in a circle.",
        "Check the flag that names it.",
    )


def _usage_fault(error: Any) -> UsageFault:
    """Typer's complaint in three sentences."""
    from compressor.inputs.nearest import did_you_mean

    said, _, suggestion = error.message.partition(" Did you mean ")
    if suggestion:
        hint = f"Did you mean {suggestion}"
    elif hasattr(error, "possibilities"):  # of an option
        hint = did_you_mean(error.option_name, error.possibilities or ())
    else:
        said, hint = error.format_message(), ""
    path = error.ctx.command_path if error.ctx is not None else "compress"
    commands = getattr(error.ctx and error.ctx.command, "commands", None)
    expected = f"Its commands are {', '.join(commands)}." if commands else f"`{path} --help` lists what it takes."
    return UsageFault(f"{path}: {said.rstrip('.')}.", expected, hint or "Correct this and run the command again.")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, separators=(",", ":"), default=str) + "\n")


# --- flags from the configuration -------------------------------------------------------------------------------------


def run_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per setting of `config.py`, with the setting's own type and description.

    The command receives them as one mapping `settings` by dotted name; a flag that was not given is None.
    """
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
    names = {dotted.replace(".", "_"): dotted for dotted in dict.fromkeys((*FIRST, *FLAGS))}
    settings = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(dotted))
        for name, dotted in names.items()
    ]

    def wrapped(**arguments: Any) -> None:
        values = {dotted: arguments.pop(name) for name, dotted in names.items()}
        values["distill.options"] = _method_options(values["distill.options"])
        values |= {dotted: tuple(values[dotted] or ()) or None for dotted in REPEATED}
        command(settings=values, **arguments)

    wrapped.__signature__ = inspect.Signature([*settings, *own])  # type: ignore[attr-defined]
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    return wrapped


def _flag(dotted: str) -> Any:
    """The Typer annotation of a setting: text where the configuration parses it, a switch for a truth value."""
    field, flag = FIELDS[dotted], FLAGS[dotted]
    if dotted in REPEATED:
        return Annotated[list[str] | None, typer.Option(flag, metavar="METRIC:RULE=LIMIT", help=field.description)]
    if dotted == "distill.options":
        return Annotated[list[str] | None, typer.Option(flag, metavar="NAME=VALUE", help=field.description)]
    if field.annotation is bool:
        return Annotated[bool | None, typer.Option(flag, help=field.description, show_default=False)]
    kinds = {field.annotation, *get_args(field.annotation)}
    kind: Any = int if int in kinds else float if float in kinds else str
    words = next(
        (part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal), None
    )
    if words is not None:
        metavar = "|".join(get_args(words))
    else:
        metavar = "PATH" if holds_path(field.annotation) else {int: "INT", float: "NUMBER", str: "TEXT"}[kind]
    default = field.default if field.default_factory is None and not field.is_required() else None
    description = f"{field.description} [default: {default}]" if default is not None else field.description
    return Annotated[kind | None, typer.Option(flag, metavar=metavar, help=description, show_default=False)]


def _method_options(pairs: list[str] | None) -> dict[str, Any] | None:
    """`["latent_dim=64", "augment=off"]` to a mapping; values are read as YAML scalars, on and off as words."""
    if not pairs:
        return None
    import yaml

    from profiles.plain_yaml import load_plain

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            value = text if text in ("on", "off") else load_plain(text)
        except yaml.YAMLError:
            value = None
        if not equals or not name or not isinstance(value, bool | int | float | str):
            raise UsageFault(
                f"--option got {pair[:NAME_SHOWN]!r}.",
                "It takes a setting of the method as NAME=VALUE.",
                "Write for example --option student_steps=2000.",
            )
        options[name] = value
    return options


def _command_line(resolved: Resolved) -> str:
    """The shell line that makes this run again, from the settings that are not defaults."""
    words = ["compress", "run"]
    for dotted, origin in resolved.origins.items():
        field, value = FIELDS.get(dotted), get(resolved.config, dotted)
        if origin == "default" or (field is not None and not field.is_required() and value == field.default):
            continue
        if field is None:
            words += [FLAGS["distill.options"], f"{dotted.rpartition('.')[2]}={value}"]
        elif isinstance(value, bool):
            words.append(FLAGS[dotted])
        elif dotted in REPEATED and isinstance(value, tuple):
            words += [word for item in value for word in (FLAGS[dotted], str(item))]
        elif isinstance(value, tuple):
            words += [FLAGS[dotted], ",".join(str(item) for item in value)]
        else:
            words += [FLAGS[dotted], str(value)]
    return shlex.join(words)


# --- commands ---------------------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"compress {__version__}")
        raise typer.Exit
    _help_where_alone(context)


@targets_app.callback(invoke_without_command=True)
def _targets(context: typer.Context) -> None:
    _help_where_alone(context)


def _help_where_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(UsageFault.exit_code)


@app.command()
@run_flags
def run(
    *,
    settings: Mapping[str, Any],
    context: typer.Context,
    config: ConfigFlag = None,
    nproc: Annotated[
        int | None,
        typer.Option("--nproc", min=1, help="train in so many processes of this machine, on a GPU the number of GPUs"),
    ] = None,
    fail_on: FailOnFlag = "fail",
    exit_zero: ExitZeroFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Distil, export, measure and report. The same command resumes an interrupted run."""
    resolved = resolve(settings, config)
    _warn(resolved.warnings)
    if nproc is not None and starts_processes(nproc):
        raise typer.Exit(start(context.obj, nproc, resolved.config.device))
    ranks = this_process()
    if ranks.rank > 0:
        from compressor.pipeline.together import follow

        raise typer.Exit(follow(resolved, ranks))
    report = _run(resolved, as_json=as_json, quiet=quiet, ranks=ranks)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from compressor.report.annotations import annotation_lines

        sys.stderr.write("".join(f"{line}\n" for line in annotation_lines(report)))
    _end(report.summary.decision, fail_on=fail_on, exit_zero=exit_zero)


def _run(resolved: Resolved, *, as_json: bool, quiet: bool, ranks: Ranks = ALONE) -> Report:
    started = time.monotonic()  # importing torch takes seconds, which are the run's as well
    from compressor.progress import Reporter
    from compressor.running import execute_run

    reporter = Reporter(quiet=quiet or as_json)
    command = _command_line(resolved)
    report = execute_run(resolved, reporter, command=command, ranks=ranks, started=started)
    _show(report, resolved.config.out, as_json=as_json)
    return report


def _show(report: Report, folder: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from compressor.report.terminal import print_summary

    if as_json:
        _print_json(report.model_dump(mode="json"))
    else:
        print_summary(report, Console())
        typer.echo(f"report: {folder / 'report.html'}")


def _end(decision: Decision, *, fail_on: Literal["fail", "warn"] = "fail", exit_zero: bool = False) -> None:
    """The exit code of a decision, where that is not 0."""
    if not exit_zero and decision in ("fail", fail_on):
        raise typer.Exit(EXIT_GATE_FAILED)


@app.command()
def export(
    source: Annotated[Path, typer.Option("--from", metavar="PATH", help="an fp32 ONNX classifier or segmenter")],
    samples: Annotated[Path, typer.Option("--samples", metavar="PATH", help="a folder with images of its task")],
    target: Annotated[str, typer.Option("--target", help="device to deploy to")] = "cpu",
    out: Annotated[Path | None, typer.Option("--out", help="folder; default: exports/<name>-<target>")] = None,
    precisions: Annotated[
        str | None, typer.Option("--precisions", help="which to make, such as fp32,fp16; default: the target's")
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="what is subtracted outside the file, per channel")] = None,
    std: Annotated[str | None, typer.Option("--std", help="what is then divided by outside the file")] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", metavar="PATH", help="more images to report on")] = None,
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="points of agreement with fp32 that may be lost", min=0, max=100)
    ] = 1.0,
    max_latency_ms: Annotated[float | None, typer.Option("--max-latency-ms", help="longest p50 of one call")] = None,
    max_size_mib: Annotated[float | None, typer.Option("--max-size-mib", help="largest file")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="start of every random sequence")] = 0,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Make precisions and kit of any ONNX classifier or segmenter, and say which to ship. Nothing is trained."""
    from compressor.deploy.exporting import export_classifier, export_request
    from compressor.progress import Reporter

    request = export_request(
        source=source,
        images=samples,
        target=target,
        out=out,
        precisions=precisions,
        mean=mean,
        std=std,
        evaluation=evaluation,
        max_drop=max_drop,
        max_latency_ms=max_latency_ms,
        max_size_mib=max_size_mib,
        seed=seed,
    )
    made = export_classifier(request, Reporter(quiet=quiet or as_json))
    _show_export(made, request.out, as_json=as_json)


def _show_export(made: Export, folder: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from compressor.report.terminal import print_artefacts, print_recommendation, print_verdicts, print_warnings
    from compressor.report.verdicts import decision_of

    if as_json:
        _print_json(made.model_dump(mode="json"))
    else:
        console = Console()
        print_artefacts(made, console)
        print_recommendation(made, console)
        print_verdicts(made.verdicts, console)
        print_warnings(made.warnings, console)
        typer.echo(f"export: {folder / 'export.json'}")
    _end(decision_of(made.verdicts, made.recommendation))


@app.command()
def profile(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="an ONNX file, an engine, or the folder of a run or an export")
    ],
    target: Annotated[
        str | None, typer.Option("--target", help="device; default: this machine, of an engine its GPU")
    ] = None,
    batch: Annotated[str | None, typer.Option("--batch", metavar="N,N", help="batch sizes, such as 1,8")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="of ONNX Runtime; default: the faster of one and all")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder; default: timings/<source>-<target>")] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Time a file on this machine, layer by layer. For a device that is not here, predict how long it takes there."""
    from compressor.deploy.profile_sheet import profile_text
    from compressor.deploy.profiling import profile_request, profile_source
    from compressor.progress import Reporter

    request = profile_request(source, target, out, batch, threads)
    made = profile_source(request, Reporter(quiet=quiet or as_json).note)
    if as_json:
        _print_json(made.model_dump(mode="json"))
        return
    typer.echo(profile_text(made, str(request.folder)))
    typer.echo(f"profile: {request.folder / 'profile.json'}")


@app.command()
def merge(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="the run folder whose kit was on the device")],
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="result.json that the kit wrote there")],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Bring what a kit measured on its device into the report of its run or export."""
    from compressor.progress import Reporter

    folder = run_folder.absolute()
    if (folder / "export.json").exists():
        from compressor.deploy.exporting import merge_into_export

        _show_export(merge_into_export(folder, result), folder, as_json=as_json)
        return
    from compressor.running import merge_result

    report = merge_result(folder, result, Reporter(quiet=quiet or as_json))
    _show(report, run_folder, as_json=as_json)
    _end(report.summary.decision)


@app.command()
def gate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or its report.json")],
    gates: Annotated[
        Path | None, typer.Option("--gates", metavar="PATH", help="YAML file of gates; default: those of the run")
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option("--gate", metavar="METRIC:RULE=LIMIT", help="a gate, such as agreement:min=97%; may be repeated"),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="PATH", help="an earlier report.json, or its run folder")
    ] = None,
    require_measured: Annotated[
        bool, typer.Option("--require-measured", help="fail a gate whose latency is only predicted")
    ] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="PATH", help="write the outcome as JUnit XML too")
    ] = None,
    fail_on: FailOnFlag = "fail",
    exit_zero: ExitZeroFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Judge an existing report by gates. Changes nothing in its run folder."""
    from rich.console import Console

    from compressor.gates.alone import decision_json, gated_report
    from compressor.report.terminal import print_decision
    from compressor.report.user_files import write_asked_file

    report = gated_report(run_folder, gates, tuple(limits or ()), baseline, require_measured=require_measured)
    if junit is not None:
        from compressor.report.junit import junit_xml

        write_asked_file(junit, junit_xml(report, fail_on=fail_on), "--junit")
    if as_json:
        _print_json(decision_json(report))
    else:
        print_decision(report, Console())
    _end(report.summary.decision, fail_on=fail_on, exit_zero=exit_zero)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="run folders or report.json, oldest first")],
    as_json: JsonFlag = False,
) -> None:
    """Put the reports of several releases side by side. What each ships, and what changed from first to last."""
    from compressor.gates.releases import side_by_side
    from compressor.report.user_files import existing_report

    if len(runs) < 2:
        raise UsageFault(
            "`compress compare` got one report.",
            "It compares two or more, the oldest first.",
            "Name another run folder or report.json.",
        )
    releases = side_by_side([existing_report(run)[0] for run in runs], [str(run) for run in runs])
    if as_json:
        _print_json(releases.to_dict())
    else:
        typer.echo(releases.to_text())


@app.command()
def verify(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="the folder of a finished run")],
    run_code: Annotated[
        bool, typer.Option("--run-code", help="let the code of a network of the user's own, in that folder, run")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check that a run folder still is what its report says. Hashes, renderings, parity; writes nothing."""
    from compressor.verifying import verify_run

    checks = verify_run(run_folder, run_code=run_code)
    if as_json:
        _print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            typer.echo(f"{check.state:<7}  {check.name}: {printable(check.found, SENTENCE_LIMIT)}")
    if any(check.state == "failed" for check in checks):
        raise typer.Exit(EXIT_GATE_FAILED)


@app.command()
@run_flags
def plan(*, settings: Mapping[str, Any], config: ConfigFlag = None, as_json: JsonFlag = False) -> None:
    """Show what a run would do. What is cached, every value and where it comes from; writes nothing."""
    from compressor.planning import plan_run
    from compressor.progress import Reporter

    resolved = resolve(settings, config)
    _warn(resolved.warnings)
    planned = plan_run(resolved, Reporter(quiet=as_json))
    if as_json:
        _print_json(planned.to_dict())
    else:
        typer.echo(planned.to_text())


@app.command("inspect")
def inspect_file(
    checkpoint: Annotated[Path, typer.Argument(help="the file to look at")], as_json: JsonFlag = False
) -> None:
    """Say what a checkpoint is, without running its code."""
    from compressor.inputs.intake import inspect_checkpoint

    report = inspect_checkpoint(checkpoint)
    if as_json:
        _print_json(report.to_dict())
    else:
        typer.echo("\n".join(map(without_controls, report.to_text().splitlines())))


@app.command()
def methods(as_json: JsonFlag = False) -> None:
    """List the distillation methods and their options."""
    from compressor.method_sheet import method_sheets, methods_text

    sheets = method_sheets()
    if as_json:
        _print_json([sheet.to_dict() for sheet in sheets])
    else:
        typer.echo(methods_text(sheets))


@targets_app.command("list")
def targets_list(as_json: JsonFlag = False) -> None:
    """List the target devices."""
    from profiles.catalogue import load_target, target_names
    from profiles.sheet import target_table

    rows = target_table(load_target(name) for name in target_names())
    if as_json:
        _print_json([row._asdict() for row in rows])
    else:
        typer.echo("\n".join(columns([rows[0]._fields, *rows])))


@targets_app.command("show")
def targets_show(
    target: Annotated[str, typer.Argument(help="a name, an alias, or a YAML file of your own")],
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="measure this machine's peaks again; otherwise once, at first use")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show one device: every figure with its source."""
    from profiles.catalogue import load_target
    from profiles.sheet import target_sheet

    profile = load_target(target)
    if profile.this_host:
        from profiles.host_speed import host_speed, with_host_speed

        profile = with_host_speed(profile, host_speed(remeasure=remeasure))
    elif remeasure:
        raise UsageFault(
            f"--remeasure was given for {profile.title}.",
            "Only the peaks of this machine are measured; those of other devices are read at their sources.",
            "Leave it out, or show the target cpu.",
        )
    if as_json:
        _print_json(profile.model_dump(mode="json"))
    else:
        typer.echo(target_sheet(profile).rstrip())


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Say what works on this machine. Also what is missing and what to install."""
    from compressor.doctor import diagnose

    checks = diagnose()
    if as_json:
        _print_json([check.to_dict() for check in checks])
        return
    for check in checks:
        typer.echo(f"{check.state:<7}  {check.name}: {check.found}")
        if check.advice:
            typer.echo(f"         {check.advice}")


@app.command()
def clean(
    run_folder: Annotated[Path, typer.Argument(help="folder of a run, such as runs/t-jetson")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Delete a run folder. Refuses any folder that a run did not make."""
    from compressor.stages import check_deletable
    from compressor.stages import clean as delete

    check_deletable(run_folder)
    if not yes and not sys.stdin.isatty():
        raise UsageFault(
            f"`compress clean {run_folder}` was called where nobody can be asked.",
            "Deleting a run needs a terminal to ask on, or --yes.",
            "Add --yes to delete it.",
        )
    if not yes and not typer.confirm(f"Delete {run_folder} and everything in it?"):
        typer.echo("nothing was deleted")
        return
    delete(run_folder)
    typer.echo(f"deleted {run_folder}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="folder for the demo's teacher, images and run")] = Path("demo"),
    method: Annotated[str, typer.Option("--method", help="distillation method")] = "hidfd",
    seed: Annotated[int, typer.Option("--seed", min=0, help="start of every random sequence")] = 0,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run everything on bundled digits. A small teacher is trained and compressed as a user would; needs no network."""
    from compressor.demo import demo_settings, prepare_demo
    from compressor.method_sheet import check_method
    from compressor.progress import Reporter

    resolved = resolve({**demo_settings(out, method), "seed": seed}, None)
    check_method(method, {})  # before a teacher is trained for nothing
    prepare_demo(out, seed=seed, reporter=Reporter(quiet=quiet or as_json))
    if not (as_json or quiet):
        sys.stderr.write(f"\n$ {_command_line(resolved)}\n\n")
    _end(_run(resolved, as_json=as_json, quiet=quiet).summary.decision)

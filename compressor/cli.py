"""The command line. It parses, calls and maps every outcome to its documented exit code; it computes nothing.

torch is imported only inside commands that need it, so that `compress --help` answers at once.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from compressor import __version__
from compressor.config import FIELDS, FLAGS, Resolved, resolve
from compressor.errors import EXIT_BUG, UsageFault, exit_code_of
from compressor.stages import Refusal
from profiles.errors import ToolError

app = typer.Typer(
    name="compress",
    help="Distil a private vision model into a small student for an edge device, from a few images and no training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
targets_app = typer.Typer(help="Devices that a student can be made for.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(targets_app, name="targets")

JsonFlag = Annotated[bool, typer.Option("--json", help="print the result as one line of JSON on stdout")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="no progress; warnings and the result only")]
ConfigFlag = Annotated[Path | None, typer.Option("--config", help="YAML file of settings; flags win over it")]


def run_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per setting of `config.py`, with the setting's own type and description.

    The command receives them as one mapping `settings` by dotted name; a flag that was not given is None.
    """
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "settings"]
    names = {dotted.replace(".", "_"): dotted for dotted in FLAGS}
    settings = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(dotted))
        for name, dotted in names.items()
    ]

    def wrapped(**arguments: Any) -> None:
        values = {dotted: arguments.pop(name) for name, dotted in names.items()}
        values["distill.options"] = _method_options(values["distill.options"])
        command(settings=values, **arguments)

    wrapped.__signature__ = inspect.Signature([*settings, *own])  # type: ignore[attr-defined]
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    return wrapped


def _flag(dotted: str) -> Any:
    """The Typer annotation of a setting: text where the configuration parses it, a switch for a truth value."""
    field = FIELDS[dotted]
    if dotted == "distill.options":
        return Annotated[list[str] | None, typer.Option(FLAGS[dotted], metavar="NAME=VALUE", help=field.description)]
    kinds = {kind for kind in (field.annotation, *get_args(field.annotation)) if kind in (bool, int, float)}
    kind: Any = kinds.pop() if len(kinds) == 1 else str
    default = "" if field.is_required() or field.default is None or kind is bool else f" [default: {field.default}]"
    if field.default_factory is not None:
        default = ""
    return Annotated[kind | None, typer.Option(FLAGS[dotted], help=f"{field.description}{default}", show_default=False)]


def _method_options(pairs: list[str] | None) -> dict[str, Any] | None:
    """`["latent_dim=64", "augment=off"]` to a mapping; values are read as YAML scalars, on and off as words."""
    if not pairs:
        return None
    import yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageFault(
                f"--option got {pair!r}.",
                "It takes a setting of the method as NAME=VALUE.",
                "Write --option latent_dim=64.",
            )
        options[name] = text if text in ("on", "off") else yaml.safe_load(text)
    return options


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, separators=(",", ":"), default=str) + "\n")


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"compress {__version__}")
        raise typer.Exit


@app.command()
@run_flags
def run(
    *,
    settings: Mapping[str, Any],
    config: ConfigFlag = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Distil, export, measure and report. The same command resumes an interrupted run."""
    resolved = resolve(settings, config)
    raise typer.Exit(_run(resolved, as_json=as_json, quiet=quiet))


def _run(resolved: Resolved, *, as_json: bool, quiet: bool) -> int:
    from compressor.pipeline import execute_run
    from compressor.progress import Reporter
    from compressor.report.terminal import print_summary

    reporter = Reporter(quiet=quiet or as_json)
    report = execute_run(resolved, reporter, command=_command_line(resolved))
    if as_json:
        _print_json(report.model_dump(mode="json"))
    else:
        from rich.console import Console

        print_summary(report, Console())
        typer.echo(f"report: {resolved.config.out / 'report.md'}")
    return 0


def _command_line(resolved: Resolved) -> str:
    """The shell line that makes this run again, from the settings that are not defaults."""
    import shlex

    from compressor.config import get

    words = ["compress", "run"]
    for dotted, origin in resolved.origins.items():
        if origin == "default":
            continue
        value = get(resolved.config, dotted)
        if dotted.startswith("distill.options."):
            words += ["--option", f"{dotted.removeprefix('distill.options.')}={value}"]
        elif isinstance(value, bool):
            words += [FLAGS[dotted]] if value else []
        elif isinstance(value, tuple):
            words += [FLAGS[dotted], ",".join(str(item) for item in value)]
        else:
            words += [FLAGS[dotted], str(value)]
    return shlex.join(words)


@app.command()
@run_flags
def plan(*, settings: Mapping[str, Any], config: ConfigFlag = None, as_json: JsonFlag = False) -> None:
    """Show what a run would do, what is cached, and where every value comes from. Writes nothing."""
    from compressor.pipeline import plan_run

    resolved = resolve(settings, config)
    planned = plan_run(resolved)
    if as_json:
        _print_json(planned.to_dict())
        return
    typer.echo(planned.to_text())


@app.command("inspect")
def inspect_checkpoint_file(
    checkpoint: Annotated[Path, typer.Argument(help="the file to look at")], as_json: JsonFlag = False
) -> None:
    """Say what a checkpoint is, without running its code."""
    from compressor.inputs.intake import inspect_checkpoint

    report = inspect_checkpoint(checkpoint)
    if as_json:
        _print_json(report.to_dict())
    else:
        typer.echo(report.to_text())


@app.command()
def methods(as_json: JsonFlag = False) -> None:
    """List the distillation methods."""
    from compressor.methods import load_method, method_names

    rows = []
    for name in method_names():
        method = load_method(name)
        rows.append(
            {
                "name": name,
                "summary": (method.__doc__ or "").strip().splitlines()[0],
                "uses": list(method.USES),
                "options": {
                    option: {"default": field.default, "description": field.description}
                    for option, field in method.Config.model_fields.items()
                },
            }
        )
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        typer.echo(
            f"{row['name']}: {row['summary']}\n  uses the teacher's {', '.join(row['uses'])}\n  options (--option NAME=VALUE):"
        )
        for option, field in row["options"].items():
            description = f"  {field['description']}" if field["description"] else ""
            typer.echo(f"    {option} = {field['default']}{description}")


@targets_app.command("list")
def targets_list(as_json: JsonFlag = False) -> None:
    """List the target devices."""
    from profiles.catalogue import load_target, target_names
    from profiles.sheet import target_table

    rows = target_table(load_target(name) for name in target_names())
    if as_json:
        _print_json([row._asdict() for row in rows])
        return
    cells = [tuple(rows[0]._fields), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@targets_app.command("show")
def targets_show(
    target: Annotated[str, typer.Argument(help="a name, an alias, or a YAML file of your own")],
    as_json: JsonFlag = False,
) -> None:
    """Show one device: every figure with its source."""
    from profiles.catalogue import load_target
    from profiles.sheet import target_sheet

    profile = load_target(target)
    if as_json:
        _print_json(profile.model_dump(mode="json"))
    else:
        typer.echo(target_sheet(profile))


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Say what works on this machine, what is missing and what to install."""
    from compressor.doctor import diagnose

    checks = diagnose()
    if as_json:
        _print_json([check.to_dict() for check in checks])
        return
    mark = {"ok": "ok     ", "warning": "warning", "missing": "missing"}
    for check in checks:
        typer.echo(f"{mark[check.state]}  {check.name}: {check.found}")
        if check.advice:
            typer.echo(f"         {check.advice}")


@app.command()
def clean(
    run_folder: Annotated[Path, typer.Argument(help="folder of a run, such as runs/t-jetson")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Delete a run folder. Refuses any folder that a run did not make."""
    from compressor.stages import clean as clean_folder

    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete {run_folder} and everything in it?"):
        raise typer.Exit
    clean_folder(run_folder)
    typer.echo(f"deleted {run_folder}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="folder for the demo's teacher, images and run")] = Path("demo"),
    method: Annotated[str, typer.Option("--method", help="distillation method")] = "hidfd",
    seed: Annotated[int, typer.Option("--seed", help="start of every random sequence")] = 0,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Train a small teacher on bundled handwritten digits, then compress it as a user would. Needs no file, no network."""
    from compressor.demo import prepare
    from compressor.progress import Reporter

    settings = prepare(out, seed=seed, reporter=Reporter(quiet=quiet or as_json))
    resolved = resolve({**settings, "distill.method": method, "seed": seed}, None)
    if not as_json:
        typer.echo(f"$ {_command_line(resolved)}", err=True)
    raise typer.Exit(_run(resolved, as_json=as_json, quiet=quiet))


def main() -> None:
    """Entry point: run the command and exit with its documented code; only a bug of ours shows a traceback."""
    # OpenMP threads that spin while they wait slow a busy machine down many times over. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except (ToolError, Refusal) as error:
        _show(error)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from the last saved step\n")
        sys.exit(exit_code_of(KeyboardInterrupt()))
    except Exception:
        traceback.print_exc()
        sys.stderr.write(
            "This is a bug in compress. Nothing was released. Please report it with the lines above and `compress doctor`.\n"
        )
        sys.exit(EXIT_BUG)


def _show(error: ToolError | Refusal) -> None:
    sys.stderr.write(f"error: {error.received}\n       {error.expected}\n       {error.action}\n")

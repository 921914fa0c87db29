"""The report that a user names, a run folder or its report.json, and a file that a user asks for."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from compressor import __version__
from compressor.errors import UsageFault
from compressor.report.schema import EARLIER_VERSIONS, SCHEMA_VERSION, Report, read_report
from compressor.report.untrusted import printable
from compressor.stages import atomic_write_text

READ = (*EARLIER_VERSIONS, SCHEMA_VERSION)


def existing_report(path: Path) -> tuple[Report, Path]:
    """The report, and the folder that it lies in.

    Raises:
        UsageFault: there is none, or it is of a schema that is not read.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return read_report(file), file.parent
    except OSError as error:
        raise UsageFault(
            f"There is no report in {path}: {error.strerror or error}.",
            "A run folder that has its report.json, or that file, was expected.",
            "Finish the run with its own `compress run` command, then ask again.",
        ) from error
    except (ValidationError, ValueError) as error:
        if (version := _other_version(file)) is not None:
            raise UsageFault(
                f"{file} is a report of schema {version}.",
                f"This version of compress, {__version__}, reads those of schema {READ[0]} to {READ[-1]}.",
                "Use the version that wrote it or a later one, or run the run's own command again with this one.",
            ) from error
        raise UsageFault(
            f"{file} is no report that this version reads.",
            "A report.json of schema 1, as a run has written it, was expected.",
            "Run the run's own command again with this version, which writes it anew.",
        ) from error


def _other_version(file: Path) -> str | None:
    """The schema of a report that this version does not read; None where that is not what is wrong with it."""
    try:
        version = json.loads(file.read_bytes()).get("schema_version")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return printable(version, 20) if isinstance(version, str) and version not in READ else None


def write_asked_file(path: Path, text: str, flag: str) -> None:
    """Write a file where the user wants it, whole or not at all.

    Raises:
        UsageFault: it cannot be written there.
    """
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise UsageFault(
            f"{flag} {path} cannot be written: {error.strerror or error}.",
            "A file in a folder that is there, and that may be written to, was expected.",
            f"Make the folder, or give another path to {flag}.",
        ) from error

"""No input runs code, loses work or corrupts a result: every entry of the corpus through the real command.

All are tried by one process (see `child`), since importing torch costs seconds; a handful go through `python -m
compressor` as a user would start it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile.corpus import ENOUGH, Place, entries

REPOSITORY = Path(__file__).parents[2]
MOST_MIB = 700  # beyond what a command that is fed nothing bad may take: importing the exporters takes 200
MOST_LETTERS = 2_100  # of a line on stderr
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
    "OMP_WAIT_POLICY": "passive",
    "OMP_NUM_THREADS": "1",
}


def test_entries_are_named_once_and_every_part_has_some() -> None:
    names = [entry.name for entry in entries()]
    assert len(names) == len(set(names)) > 300
    assert {entry.attacks for entry in entries()} >= {"code in a pickle", "a bomb of zip", "YAML", "ONNX", "images"}


def test_a_canary_sings_where_a_file_is_trusted(tmp_path: Path) -> None:
    """What the corpus would do is really in it: a reader without protection runs it."""
    from hostile.teachers import archive

    command = f"touch {tmp_path / 'canary'}"
    program = f"cposix\nsystem\n(V{command}\ntR.".encode()
    path = archive(tmp_path / "t.pt", {"archive/data.pkl": program})
    words = f"import torch; torch.load({str(path)!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", words], check=False, capture_output=True)
    assert (tmp_path / "canary").exists()


@pytest.mark.slow
def test_no_entry_runs_code_or_writes_elsewhere_or_ends_as_a_bug(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    words = [sys.executable, "-X", "faulthandler", "-m", "hostile.child", str(tmp_path / "box"), str(results)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    records = [json.loads(line) for line in results.read_text().splitlines()]
    begun = [record["name"] for record in records if record.get("begun")]
    assert done.returncode == 0, f"it ended with {done.returncode} in {begun[-1:]}: {done.stderr[-2_000:]}"
    assert begun == [entry.name for entry in entries()]
    tried = [record for record in records if not record.get("begun")]
    assert {record["name"] for record in tried} == set(begun)
    problems = [f"{record['name']} ({record['words'][0]}): {said}" for record in tried for said in _problems(record)]
    assert not problems, "\n".join(problems)
    print(f"{len(begun)} entries, {len(tried)} commands")


def _problems(record: dict[str, Any]) -> Iterator[str]:
    """What a command did that none may do."""
    if record["crash"]:
        yield f"it did not end: {record['crash'][-500:]}"
        return
    if record["code"] not in record["codes"]:
        yield f"exit code {record['code']}, and not one of {record['codes']}: {record['err'][-500:]}"
    if record["canary"] and not record["may_run_code"]:
        yield "the canary is there: code was run"
    started = [event for event in record["events"] if "compressor.deploy" not in event]
    if started and not record["may_run_code"]:
        yield f"it started or opened {started}"
    if record["written"] or record["removed"]:
        yield f"it wrote {record['written']} and removed {record['removed']}"
    if record["peak_mib"] > MOST_MIB:
        yield f"it took {record['peak_mib']:.0f} MiB"
    if "Traceback" in record["err"]:
        yield "a traceback"
    if record["says"] and "run" in record["words"][:1] and record["says"] not in record["err"]:
        yield f"it does not say {record['says']!r}"
    if found := CONTROLS.search(record["out"] + record["err"]):
        yield f"the control character {found[0]!r} in what it prints"
    if any(len(line) > MOST_LETTERS for line in record["err"].splitlines()):
        yield "a line without end"
    if record["code"] > 1 and ENOUGH not in record["err"]:
        sentences = [line for line in record["err"].splitlines() if line.startswith(("error: ", "       "))][-3:]
        if len(sentences) != 3 or not all(line.rstrip().endswith((".", "?", "…")) for line in sentences):
            yield f"it is not three sentences: {record['err'][-500:]}"


REAL = (
    "os.system in a training checkpoint, new format",
    "names composed on the stack",
    "a numpy type whose state lies",
    "configuration: a tag of Python",
    "board: an option",
)


@pytest.mark.slow
def test_a_handful_as_a_user_would_start_them(tmp_path: Path) -> None:
    from hostile.corpus import commands
    from tiny_run import write_inputs

    good = tmp_path / "good"
    good.mkdir()
    write_inputs(good)
    import torch

    torch.save(torch.load(good / "t.pt", weights_only=True)["state_dict"], good / "weights.pt")
    for entry in entries():
        if entry.name not in REAL:
            continue
        place = Place(tmp_path / re.sub(r"[^\w.-]", "_", entry.name), good, tmp_path / "canary")
        place.given.mkdir(parents=True)
        command = list(commands(entry, place, entry.make(place)))[-1]
        words = [sys.executable, "-m", "compressor", *command.words]
        done = subprocess.run(words, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in command.codes, done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "canary").exists()

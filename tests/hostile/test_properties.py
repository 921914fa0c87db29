"""Whatever a document holds, its reader gives a valid object or the documented refusal, and never another exception.

Valid documents are changed in one or two places, and any value at all is tried in their place. What a refusal says is
bounded and printable.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from hostile.runs import a_result, signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor import cli
from compressor.config import RunConfig, resolve, save_resolved
from compressor.deploy.export_request import export_request
from compressor.errors import InputRefused, UsageFault
from compressor.gates.asked import load_asked, read_baseline
from compressor.gates.gate import Gate, read_gates
from compressor.inputs.card import TeacherCard
from compressor.inputs.card_facts import FROM_CHECKPOINT, Facts, read_card_file
from compressor.provenance.manifest import read_manifest
from compressor.report.schema import Report
from compressor.report.user_files import existing_report
from compressor.stages import Choices, Refusal, Stage, edited_outputs, recorded_fingerprint, status
from profiles.board_result import BoardResultError, read_board_result
from profiles.catalogue import DEVICES, load_target
from profiles.errors import ProfileError, ToolError
from profiles.plain_yaml import load_plain
from profiles.schema import DeviceProfile
from profiles.ssh import WrongBoardName, board_named

settings.register_profile(
    "hostile",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("hostile")
HOSTILE = settings.get_profile("hostile")

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "\x1b[31m", "\u202e", "../..", "/dev/zero", "a\nb", "::error::", "x" * 3_000, "9" * 400, "nan", "no", "1e999"]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**70, 10**400, 1e308, 5e-324])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
MAX_LINE = 2_100


@st.composite
def changed(draw: Callable[..., Any], document: Any) -> Any:
    """The document with one or two of its values replaced, removed or joined by another."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        part = document
        while True:
            if isinstance(part, dict) and part:
                key: Any = draw(st.sampled_from(sorted(part)))
            elif isinstance(part, list) and part:
                key = draw(st.integers(0, len(part) - 1))
            else:
                break
            if isinstance(part[key], dict | list) and part[key] and draw(st.booleans()):
                part = part[key]
                continue
            match draw(st.sampled_from(["replace", "remove", "add"])):
                case "remove":
                    del part[key]
                case "add" if isinstance(part, dict):
                    part[draw(TEXTS)] = draw(VALUES)
                case _:
                    part[key] = draw(VALUES)
            break
    return document


def refused(error: ToolError | Refusal) -> None:
    """Three sentences, as the command line prints them: of bounded length, and printable."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        cli._refuse(error.received, error.expected, error.action)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 3
    for line in lines:
        assert 0 < len(line.removeprefix("error:").strip()) <= MAX_LINE
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


def as_yaml(path: Path, value: object) -> Path:
    """JSON is YAML, but for numbers that it has no words for."""
    path.write_text(json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf"))
    return path


CARD = json.loads(tiny.card().model_dump_json())
PROFILE = yaml.safe_load((DEVICES / "jetson-orin-nano-super.yaml").read_text())
PROFILE = {**{key: value for key, value in PROFILE.items() if key != "aliases"}, "name": "mine"}
GATES = {
    "gates": [
        {"metric": "agreement", "min": "97 %", "min_samples": 200, "images": "eval"},
        {"metric": "latency_p50_ms", "max": 5, "severity": "warn", "artefact": "student int8", "name": "fast"},
    ]
}
CONFIG = {
    "teacher": {"file": "t.pt", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [8, 8]},
    "samples": {"folder": "few", "evidence_fraction": 0.2},
    "distill": {"method": "hidfd", "options": {"student_steps": 5}},
    "limits": {"max_latency_ms": 5.0},
    "gates": {"limits": ["agreement:min=97%"]},
    "budget": "30m",
    "seed": 3,
}
RESULT = a_result("0" * 64, "t4", [("student", "fp32", "models/student.fp32.onnx", "1" * 64)])
RECORD = {
    "fingerprint": "0" * 64,
    "config": {"a": {"b": 1}},
    "inputs": [{"name": "x", "sha256": "0" * 64}],
    "environment": {"torch": "2"},
    "outputs": {"x.txt": "0" * 64},
    "seconds": 1.0,
}


@HOSTILE
@given(st.one_of(changed(CARD), VALUES))
def test_a_card(card: Any) -> None:
    facts = Facts("t.pt")
    try:
        facts.state_all(card, FROM_CHECKPOINT)
        facts.complete("cifar_resnet", 4, 3, None) if "architecture" in facts.values else None
        made = facts.card()
    except (InputRefused, UsageFault) as error:
        refused(error)
    else:
        assert TeacherCard.model_validate_json(made.model_dump_json()) == made


@HOSTILE
@given(st.one_of(changed(CARD), VALUES, TEXTS))
def test_a_card_file(folder: Path, card: Any) -> None:
    try:
        Facts("t.pt").state_all(read_card_file(as_yaml(folder / "card.yaml", card)), "card.yaml")
    except InputRefused as error:
        refused(error)


@HOSTILE
@given(st.one_of(changed(PROFILE), changed({"extends": "t4"}), VALUES))
def test_a_profile(folder: Path, document: Any) -> None:
    try:
        profile = load_target(str(as_yaml(folder / "mine.yaml", document)))
    except ProfileError as error:
        refused(error)
    else:
        assert DeviceProfile.model_validate_json(profile.model_dump_json()) == profile


@HOSTILE
@given(st.one_of(changed(GATES), VALUES), st.lists(TEXTS | st.from_regex(r"agreement:[a-z_]+=.{0,9}"), max_size=2))
def test_gates(folder: Path, document: Any, flags: list[str]) -> None:
    try:
        gates = read_gates(as_yaml(folder / "gates.yaml", document), flags)
    except UsageFault as error:
        refused(error)
    else:
        assert all(isinstance(gate, Gate) for gate in gates)


@HOSTILE
@given(
    st.one_of(changed(CONFIG), VALUES),
    st.dictionaries(
        st.sampled_from(["seed", "target", "budget", "teacher.mean", "distill.options"]), VALUES, max_size=2
    ),
)
def test_a_configuration(folder: Path, document: Any, flags: dict[str, Any]) -> None:
    try:
        resolved = resolve(flags, as_yaml(folder / "run.yaml", document))
    except UsageFault as error:
        refused(error)
    else:
        assert isinstance(resolved.config, RunConfig)
        save_resolved(resolved, folder / "saved.yaml")
        assert resolve({}, folder / "saved.yaml").config == resolved.config


@HOSTILE
@given(st.one_of(changed(RESULT), VALUES), st.booleans())
def test_a_result_of_a_board(folder: Path, result: Any, is_signed: bool) -> None:
    content = json.dumps(result).encode()
    path = folder / "result.json"
    path.write_bytes(signed(content) if is_signed else content)
    try:
        read = read_board_result(path)
    except BoardResultError as error:
        refused(error)
    else:
        assert json.loads(read.model_dump_json())["kit_sha256"] == result["kit_sha256"]


@HOSTILE
@given(st.data())
def test_a_report_and_a_baseline(folder: Path, report: Report, data: st.DataObject) -> None:
    document = data.draw(st.one_of(changed(json.loads(report.model_dump_json())), VALUES))
    path = folder / "report.json"
    path.write_text(json.dumps(document))
    for read in (lambda: existing_report(path)[0], lambda: read_baseline(path).report):
        try:
            made = read()
        except UsageFault as error:
            refused(error)
        else:
            assert Report.model_validate_json(made.model_dump_json()) == made


@HOSTILE
@given(st.one_of(changed(RECORD), VALUES))
def test_what_a_stage_recorded(folder: Path, record: Any) -> None:
    """A record that is not as it was written is none: the stage runs again."""
    stage_folder = folder / "stage"
    stage_folder.mkdir(exist_ok=True)
    (stage_folder / "x.txt").write_text("x")
    (folder / "choices.json").write_text(json.dumps(record))
    stage = Stage("stage", (), ("x.txt",), {}, {}, 1, lambda _: None)
    for name in ("manifest.json", "in-progress.json"):
        (stage_folder / name).write_text(json.dumps(record))
        assert status(stage, folder).state == "run"
        recorded_fingerprint(stage_folder)
        with contextlib.suppress(FileNotFoundError):
            edited_outputs(stage_folder)
    try:
        Choices(folder).remember("a", lambda: 1)
    except Refusal as error:
        refused(error)


@HOSTILE
@given(VALUES)
def test_the_gates_and_the_manifest_of_a_run(folder: Path, document: Any) -> None:
    (folder / "gates.json").write_text(json.dumps(document))
    try:
        load_asked(folder)
    except UsageFault as error:
        refused(error)
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="RunManifest"):
        read_manifest(folder / "manifest.json")


@HOSTILE
@given(TEXTS, TEXTS, TEXTS, st.floats(), st.floats())
def test_a_request_for_an_export(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, precisions: str, mean: str, std: str, ms: float, mib: float
) -> None:
    images = folder / "few"
    images.mkdir(exist_ok=True)
    (images / "a.png").touch()
    try:
        request = export_request(
            source=Path("x.onnx"), images=images, target="t4", out=None, precisions=precisions, mean=mean, std=std,
            evaluation=None, max_drop=1.0, max_latency_ms=ms, max_size_mib=mib, seed=0,
        )  # fmt: skip
    except UsageFault as error:
        refused(error)
    else:
        assert request.precisions is None or "fp32" in request.precisions


@HOSTILE
@given(st.text(max_size=60) | st.from_regex(r"[&*!\[{<a: \n-]{1,30}"))
def test_any_text_as_yaml(text: str) -> None:
    try:
        value = load_plain(text)
    except yaml.YAMLError:
        return
    assert len(repr(value)) < 100_000


@HOSTILE
@given(TEXTS | st.from_regex(r"[-a-z@:\[\]. %]{1,20}"))
def test_the_name_of_a_board(name: str) -> None:
    try:
        board = board_named(name)
    except WrongBoardName as error:
        refused(error)
    else:
        assert not board.host.startswith("-")
        assert not (board.user or "").startswith("-")

"""Gates as a pipeline meets them: on a run, on its report later, beside an earlier release; and what changed since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_run
from tiny_run import Compress, refused

from compressor.cli import invoke
from compressor.gates.releases import differences
from compressor.provenance.manifest import run_manifest, write_manifest
from compressor.report.rendering import rendered
from compressor.report.schema import read_report, write_report

GATES = "gates: [{metric: agreement, min: 0 %}, {metric: params_m, max: 1}]"


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gates") / "gates.yaml"
    file.write_text(GATES)
    return file


@pytest.fixture(scope="module")
def finished(inputs: Path, gates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for a Jetson that passes two gates; not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "t-jetson"
    words = ("--target", "jetson", "--eval", f"{inputs}/val", "--gates", f"{gates}")
    assert invoke(tiny_run.line(inputs, folder, *words)) == 0
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


# --- the run itself ---------------------------------------------------------------------------------------------------


def test_a_run_is_judged_and_says_so(finished: Path) -> None:
    report = read_report(finished / "report.json")
    assert [(gate.metric, gate.state, gate.outcome) for gate in report.gates] == [
        ("agreement", "held", "pass"),
        ("params_m", "held", "pass"),
    ]
    assert report.summary.decision == "pass"
    assert "2 gates pass." in (finished / "report.md").read_text()
    assert "--gates" in report.command


def test_other_gates_judge_again_without_another_training(
    copy: Path, inputs: Path, gates: Path, compress: Compress
) -> None:
    line = tiny_run.line(inputs, copy, "--target", "jetson", "--eval", f"{inputs}/val", "--gates", f"{gates}")
    strict = (*line, "--gate", "params_m:max=0.000001", "--gate", "latency_p50_ms:max=1000")
    outcome = compress(*strict)
    assert outcome.code == 1
    assert set(outcome.states().values()) == {"cached"}
    assert "Gate fails" in outcome.out
    report = read_report(copy / "report.json")
    assert [gate.outcome for gate in report.gates] == ["pass", "pass", "fail", "warn"]
    assert report.summary.decision == "fail"
    assert compress(*strict, "--exit-zero").code == 0
    assert compress(*line, "--gate", "latency_p50_ms:max=1000").code == 0
    assert compress(*line, "--gate", "latency_p50_ms:max=1000", "--fail-on", "warn").code == 1
    assert compress(*line, "--gate", "latency_p50_ms:max=1000", "--require-measured").code == 1


def test_gates_are_refused_before_anything_runs(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    line = tiny_run.line(inputs, tmp_path / "run", "--target", "jetson")
    refused(compress(*line, "--gate", "agreement:min=97"), 2, "write 97 %", "docs/gates.md")
    refused(compress(*line, "--gates", f"{tmp_path}/no.yaml"), 2, "cannot be read", "--gates")
    refused(compress(*line, "--baseline", f"{inputs}"), 2, "The baseline", "cannot be read")
    refused(compress(*line, "--baseline", f"{inputs}/t.pt"), 2, "is no report of this tool")
    assert not (tmp_path / "run").exists()


# --- later, alone -----------------------------------------------------------------------------------------------------


def test_a_report_is_judged_by_the_gates_of_its_run(finished: Path, compress: Compress) -> None:
    outcome = compress("gate", f"{finished}")
    assert outcome.code == 0
    assert outcome.out.count("Gate passes") == 2
    assert "Decision on t-jetson: pass" in outcome.out


@pytest.mark.parametrize(
    ("words", "code", "decision"),
    [
        (("--gate", "agreement:min=0%"), 0, "pass"),
        (("--gate", "agreement:min=100%,min_samples=1000"), 1, "fail"),
        (("--gate", "agreement:min=100%,min_samples=1000,severity=warn"), 0, "warn"),
        (("--gate", "agreement:min=100%,min_samples=1000,severity=warn", "--fail-on", "warn"), 1, "warn"),
        (("--gate", "agreement:min=100%,min_samples=1000", "--exit-zero"), 0, "fail"),
        (("--gate", "latency_p50_ms:max=1000"), 0, "warn"),
        (("--gate", "latency_p50_ms:max=1000", "--require-measured"), 1, "fail"),
        (("--gate", "mean_iou:min=0%"), 1, "fail"),
        (("--gate", "size_mib:max_regression=0"), 1, "fail"),
    ],
)
def test_exit_codes(finished: Path, compress: Compress, words: tuple[str, ...], code: int, decision: str) -> None:
    outcome = compress("gate", f"{finished}", *words, "--json")
    assert outcome.code == code
    assert outcome.out.count("\n") == 1
    assert json.loads(outcome.out)["decision"] == decision


def test_judging_again_changes_nothing_in_the_run(copy: Path, tmp_path: Path, compress: Compress) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    outcome = compress("gate", f"{copy}", "--gate", "params_m:max=0.000001", "--junit", f"{tmp_path}/junit.xml")
    assert outcome.code == 1
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert "<failure" in (tmp_path / "junit.xml").read_text()


def test_a_baseline_is_a_folder_or_a_file(finished: Path, compress: Compress) -> None:
    for baseline in (finished, finished / "report.json"):
        outcome = compress(
            "gate", f"{finished}", "--baseline", f"{baseline}", "--gate", "agreement:max_regression=0points"
        )
        assert outcome.code == 0, outcome.out
        assert "nothing is lost" in " ".join(outcome.out.split())


def test_where_there_is_no_report(tmp_path: Path, inputs: Path, compress: Compress) -> None:
    refused(compress("gate", f"{tmp_path}"), 2, "There is no report in")
    refused(compress("gate", f"{inputs}/t.pt"), 2, "is no report that this version reads")
    refused(compress("gate", f"{tmp_path}", "--junit", f"{tmp_path}/no/junit.xml"), 2, "There is no report in")


# --- two releases -----------------------------------------------------------------------------------------------------


def test_two_runs_of_one_seed_are_the_same_apart_from_times(
    finished: Path, inputs: Path, gates: Path, tmp_path: Path, compress: Compress
) -> None:
    words = ("--target", "jetson", "--eval", f"{inputs}/val", "--gates", f"{gates}")
    assert compress(*tiny_run.line(inputs, tmp_path / "again", *words)).code == 0
    first, second = (read_report(folder / "report.json") for folder in (finished, tmp_path / "again"))
    assert differences(first, second) == ()
    outcome = compress("compare", f"{finished}", f"{tmp_path}/again")
    assert outcome.code == 0
    assert "The first and the last are the same apart from times." in outcome.out
    other = first.model_copy(update={"student": first.student.model_copy(update={"params_m": 9.0})})
    assert differences(other, second) == ("student.params_m",)


def test_one_report_alone_is_not_compared(finished: Path, compress: Compress) -> None:
    refused(compress("compare", f"{finished}"), 2, "compares two or more")


def test_a_comparison_for_a_program(finished: Path, compress: Compress) -> None:
    outcome = compress("compare", f"{finished}", f"{finished}", f"{finished}", "--json")
    found = json.loads(outcome.out)
    assert outcome.out.count("\n") == 1
    assert [row["verdict"] for row in found["metrics"]] == ["equal"] * len(found["metrics"])
    assert {len(row["values"]) for row in found["metrics"]} == {3}


# --- what was changed since -------------------------------------------------------------------------------------------


def test_an_untouched_run_is_verified(finished: Path, compress: Compress) -> None:
    outcome = compress("verify", f"{finished}")
    assert outcome.code == 0, outcome.out
    assert {line.split()[0] for line in outcome.out.splitlines()} == {"ok"}


def flip(path: Path) -> None:
    """Change the last byte but ten."""
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("file", "check"),
    [
        ("onnx/student.onnx", "artefacts"),
        ("precision/student.int8.onnx", "artefacts"),
        ("kit/kit.tar.gz", "artefacts"),
        ("distill/student.safetensors", "stages"),
        ("samples/split.json", "held-out images"),
        ("report.md", "renderings"),
        ("report.html", "renderings"),
        ("junit.xml", "renderings"),
    ],
)
def test_a_file_that_was_edited_is_found(copy: Path, compress: Compress, file: str, check: str) -> None:
    flip(copy / file)
    outcome = compress("verify", f"{copy}", "--json")
    assert outcome.code == 1
    failed = {found["name"]: found["found"] for found in json.loads(outcome.out) if found["state"] == "failed"}
    assert check in failed, failed


def rewrite(run: Path, **changes: object) -> None:
    """Edit the report, and all that is made of it, as somebody would who wants it to look whole."""
    report = read_report(run / "report.json").model_copy(update=changes)
    write_report(report, run / "report.json")
    for name, text in rendered(report, run).items():
        (run / name).write_text(text)
    write_manifest(run_manifest(report, run), run / "manifest.json")


@pytest.mark.parametrize("what", ["agreement", "decision", "teacher", "evaluation", "stages", "artefacts", "machine"])
def test_a_claim_that_the_stages_do_not_bear_out_is_found(copy: Path, compress: Compress, what: str) -> None:
    report = read_report(copy / "report.json")
    gates = (report.gates[0].model_copy(update={"limit": 0.5}), *report.gates[1:])
    changes: dict[str, dict[str, object]] = {
        "agreement": {"student": report.student.model_copy(update={"params_m": 1e-6})},
        "decision": {"gates": gates},
        "teacher": {"teacher_source": report.teacher_source.model_copy(update={"sha256": "0" * 64})},
        "evaluation": {"comparison_eval": None},
        "stages": {"stages": ()},
        "artefacts": {"artefacts": ()},
        "machine": {"variants": report.variants[:-1]},
    }
    rewrite(copy, **changes[what])
    outcome = compress("verify", f"{copy}", "--json")
    assert outcome.code == 1
    failed = [found["name"] for found in json.loads(outcome.out) if found["state"] == "failed"]
    assert "report" in failed


def test_a_manifest_that_says_otherwise_is_found(copy: Path, compress: Compress) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "seed": 7}))
    assert "not what the run says: seed" in compress("verify", f"{copy}").out
    (copy / "manifest.json").write_text(json.dumps({**manifest, "files": []}))
    assert "is not listed" in compress("verify", f"{copy}").out


def test_a_file_laid_beside_the_others_is_found(copy: Path, compress: Compress) -> None:
    (copy / "precision/other.onnx").write_bytes(b"other")
    outcome = compress("verify", f"{copy}")
    assert outcome.code == 1
    assert "precision/other.onnx is not listed" in outcome.out


def test_a_report_away_from_its_run_still_says_what_its_gates_found(
    finished: Path, tmp_path: Path, compress: Compress
) -> None:
    report = read_report(finished / "report.json")
    failed = report.gates[1].model_copy(update={"state": "missed", "outcome": "fail"})
    summary = report.summary.model_copy(update={"decision": "fail"})
    write_report(report.model_copy(update={"gates": (failed,), "summary": summary}), tmp_path / "report.json")
    assert compress("gate", f"{tmp_path}").code == 1
    judged = compress("gate", f"{tmp_path}", "--require-measured", "--json")
    assert [gate["name"] for gate in json.loads(judged.out)["gates"]] == [failed.name]


def test_gates_that_were_edited_in_the_run_are_refused(copy: Path, compress: Compress) -> None:
    asked = json.loads((copy / "gates.json").read_text())
    for change in ({"metric": "speed"}, {"rule": "most"}, {"limit": "much"}, {"limit": float("nan")}):
        edited = {**asked, "gates": [{**asked["gates"][0], **change}]}
        (copy / "gates.json").write_text(json.dumps(edited))
        refused(compress("gate", f"{copy}"), 2, "The gates in", "cannot be read")


def test_another_network_under_the_same_report_is_found(copy: Path, compress: Compress) -> None:
    """Whoever edits the hashes as well still has a file that computes something else."""
    import onnx

    model = onnx.load(copy / "onnx/student.onnx")
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) > 1)
    values = onnx.numpy_helper.to_array(weights) * 1.01
    weights.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), weights.name))
    onnx.save(model, copy / "onnx/student.onnx")
    outcome = compress("verify", f"{copy}", "--json")
    failed = {found["name"]: found["found"] for found in json.loads(outcome.out) if found["state"] == "failed"}
    assert "student.onnx differs from torch by" in failed["parity"]


def test_a_folder_without_a_report_is_not_verified(tmp_path: Path, compress: Compress) -> None:
    refused(compress("verify", f"{tmp_path}"), 2, "There is no report in")

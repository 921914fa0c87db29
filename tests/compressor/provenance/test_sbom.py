"""sbom.json against the official schema of CycloneDX 1.6, and against the environment that it describes."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from judged import HOSTILE

from compressor.provenance.sbom import installed_closure, sbom_json
from compressor.report.schema import Artefact, Report


def checked(text: str) -> dict[str, Any]:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, str(error)
    found: dict[str, Any] = json.loads(text)
    references = [one["bom-ref"] for one in (*found["components"], found["metadata"]["component"])]
    assert len(set(references)) == len(references)
    assert {one["ref"] for one in found["dependencies"]} == set(references)
    return found


def install(folder: Path, name: str, *metadata: str) -> None:
    """A distribution that consists of its metadata."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *metadata, ""]))


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """a-tool needs plain, and with-extra by its extra `more`; with-extra needs deep for that, and a-tool again."""
    install(
        tmp_path,
        "a-tool",
        "Requires-Dist: plain>=1",
        "Requires-Dist: With_Extra[more]",
        "Requires-Dist: elsewhere; sys_platform == 'nowhere'",
        "Requires-Dist: not-installed",
        "Requires-Dist: for-tests; extra == 'dev'",
        "License-Expression: Apache-2.0 AND MIT",
    )
    install(tmp_path, "plain", "License: BSD", "Classifier: License :: OSI Approved :: BSD License")
    install(
        tmp_path, "with-extra", "Requires-Dist: deep; extra == 'more'", "Requires-Dist: a-tool", f"License: {'x' * 500}"
    )
    install(tmp_path, "deep", "License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License")
    install(tmp_path, "for-tests")
    install(tmp_path, "elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("made_up")
def test_what_a_tool_needs_here_directly_and_through_others(report: Report) -> None:
    needs = {name: names for name, (_, names) in installed_closure("A.Tool").items()}
    assert needs == {
        "a-tool": {"plain", "with-extra"},
        "deep": set(),
        "plain": set(),
        "with-extra": {"a-tool", "deep"},
    }
    found = checked(sbom_json(report, "a-tool"))
    licences = {one["name"]: one.get("licenses") for one in found["components"]}
    assert licences["a-tool"] == [{"expression": "Apache-2.0 AND MIT"}]
    assert licences["plain"] == [{"license": {"name": "BSD"}}]
    assert licences["with-extra"] is None
    assert licences["deep"] == [{"license": {"name": "MIT License"}}]
    edges = {one["ref"]: one.get("dependsOn", []) for one in found["dependencies"]}
    assert edges["pkg:pypi/with-extra@1.0"] == ["pkg:pypi/a-tool@1.0", "pkg:pypi/deep@1.0"]
    assert "pkg:pypi/a-tool@1.0" in edges["student"]


def test_this_environment(report: Report) -> None:
    found = checked(sbom_json(report))
    libraries = {one["name"].lower(): one for one in found["components"] if one["type"] == "library"}
    assert {"torch", "numpy", "onnx", "pydantic"} <= set(libraries)
    assert "pytest" not in libraries
    assert libraries["numpy"]["version"] == version("numpy")
    assert libraries["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"


@pytest.mark.usefixtures("made_up")
def test_the_students_files_are_there_and_the_teachers_are_not(build_report: Callable[..., Report]) -> None:
    paths = ("onnx/student.onnx", "onnx/teacher.onnx", "distill/student.safetensors", "kit/kit.tar.gz")
    report = build_report(artefacts=tuple(Artefact(path=path, sha256="9" * 64, size_bytes=1) for path in paths))
    found = checked(sbom_json(report, "a-tool"))
    models = {one["name"]: one["hashes"] for one in found["components"] if one["type"] == "machine-learning-model"}
    hashes = [{"alg": "SHA-256", "content": "9" * 64}]
    assert models == {"onnx/student.onnx": hashes, "distill/student.safetensors": hashes}
    assert found["metadata"]["component"]["name"] == report.run_name
    assert found["metadata"]["timestamp"] == "2026-11-20T12:30:00+00:00"


@pytest.mark.usefixtures("made_up")
def test_equal_runs_have_equal_texts_and_others_another_serial_number(report: Report) -> None:
    text = sbom_json(report, "a-tool")
    assert sbom_json(report.model_copy(deep=True), "a-tool") == text
    other = sbom_json(report.model_copy(update={"run_name": "other"}), "a-tool")
    assert json.loads(other)["serialNumber"] != json.loads(text)["serialNumber"]


@pytest.mark.usefixtures("made_up")
def test_without_an_installed_tool_the_student_is_still_described(report: Report) -> None:
    found = checked(sbom_json(report.model_copy(update={"run_name": HOSTILE}), "not-installed"))
    assert [one["name"] for one in found["components"] if one["type"] == "application"] == ["not-installed"]
    assert "\x1b" not in found["metadata"]["component"]["name"]

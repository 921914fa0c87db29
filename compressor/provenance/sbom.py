"""sbom.json: what a student was made with, as a CycloneDX 1.6 bill of materials.

The subject is the student, whose files are its components with their hashes; the tool and every distribution that it
needs, directly or through another, are what made it, each as it is installed here. Nothing is looked up elsewhere: a
licence is what the distribution's own metadata say, and is missing where they say nothing that fits into a line.

The same report and the same environment give the same text: the time is the report's, and the serial number follows
from all the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import PurePosixPath
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

from compressor.report.schema import Artefact, Report
from compressor.report.untrusted import printable

SBOM = "sbom.json"
TOOL = "compress-edge"
NAME_LIMIT = 200
LICENCE_LIMIT = 100  # longer, it is the text of a licence and not its name
MODELS = (".onnx", ".pt2", ".safetensors", ".engine")
NO_LICENCE = ("", "UNKNOWN")


def sbom_json(report: Report, tool: str = TOOL) -> str:
    """The whole file.

    Args:
        tool: the distribution whose requirements are followed.
    """
    bom = _bom(report, tool)
    bom.serial_number = UUID(int=0)
    bom.serial_number = uuid5(NAMESPACE_URL, _text(bom))
    return _text(bom) + "\n"


def installed_closure(root: str) -> dict[str, tuple[Distribution, set[str]]]:
    """A distribution and all that it needs here, by normalised name, each with the names of what it needs itself.

    A requirement whose marker does not hold in this environment, or that is not installed, is left out.
    """
    found: dict[str, tuple[Distribution, set[str]]] = {}
    pending = [(_normalised(root), frozenset[str]())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        name, wanted = pending.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        _, needs = found.setdefault(name, (installed, set()))
        for requirement in map(Requirement, installed.requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *sorted(wanted))):
                needed = _normalised(requirement.name)
                needs.add(needed)
                pending.append((needed, frozenset(requirement.extras)))
    return {name: (installed, needs & found.keys() - {name}) for name, (installed, needs) in sorted(found.items())}


def _bom(report: Report, tool: str) -> Bom:
    closure = installed_closure(tool)
    libraries = {name: _library(name, installed) for name, (installed, _) in closure.items()}
    made_with = libraries.get(_normalised(tool)) or _tool(report, tool, bom_ref=tool)
    student = Component(
        name=printable(report.run_name, NAME_LIMIT),
        version=report.onnx.sha256[:12],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="student",
        description=f"{printable(report.student.architecture, NAME_LIMIT)}, distilled from a teacher with the SHA-256 "
        f"{report.teacher_source.sha256}",
    )
    files = [_model(artefact) for artefact in student_files(report)]
    writer = ToolRepository(components=[_tool(report, tool, bom_ref="writer")])
    bom = Bom(
        metadata=BomMetaData(component=student, timestamp=report.created, tools=writer),
        components=[*files, *libraries.values(), made_with],
    )
    bom.register_dependency(student, [*files, made_with])
    for name, (_, needs) in closure.items():
        bom.register_dependency(libraries[name], [libraries[needed] for needed in sorted(needs)])
    return bom


def student_files(report: Report) -> Iterator[Artefact]:
    """The student's own networks, in whatever format and precision; neither the teacher's nor what is no network."""
    of_teacher = {variant.path for variant in report.variants if variant.model == "teacher"}
    for artefact in report.artefacts:
        if PurePosixPath(artefact.path).suffix in MODELS and artefact.path not in of_teacher:
            yield artefact


def _tool(report: Report, name: str, bom_ref: str) -> Component:
    return Component(name=name, version=report.tool_version, type=ComponentType.APPLICATION, bom_ref=bom_ref)


def _model(artefact: Artefact) -> Component:
    return Component(
        name=artefact.path,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"student/{artefact.path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artefact.sha256)],
    )


def _library(name: str, installed: Distribution) -> Component:
    purl = PackageURL("pypi", None, name, installed.version)
    return Component(
        name=installed.name,
        version=installed.version,
        type=ComponentType.LIBRARY,
        bom_ref=BomRef(str(purl)),
        purl=purl,
        licenses=_licences(installed),
    )


def _licences(installed: Distribution) -> list[License]:
    """As the newest field that says something has it: an SPDX expression, or else a name, or else a classifier."""
    said = installed.metadata
    factory = LicenseFactory()
    for field in ("License-Expression", "License"):
        text = "".join(said.get_all(field) or ()).strip()
        if text not in NO_LICENCE and len(text) <= LICENCE_LIMIT and "\n" not in text:
            return [factory.make_from_string(text)]
    names = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or () if line.startswith("License :: ")]
    return [factory.make_with_name(name) for name in dict.fromkeys(names)]


def _text(bom: Bom) -> str:
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)


def _normalised(name: str) -> str:
    """As the index does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()

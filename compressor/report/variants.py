"""The artefacts that the stages made, as the report shows them. Reads these facts, each of which may be missing:

    precision   {"variants": [{"model", "precision", "file", "made_for", "size_mib", "sha256", "parity", "optimise",
                               "judged", "note"}],
                 "int8": [Int8Calibration without what was found on evidence], "notes": [str]}
    engine      {"variants": [as above], "note": str or None}
    kit         {"kit": {"path", "sha256", "files": [str], "notes": [str]} or None}
    latency     {"latencies": {key: LatencyStats or {"skipped": reason}}, "predicted": {key: Prediction}}
    report      {"variants": {key: {"evidence": variant_facts, "eval": variant_facts}}}

A key is `student.int8` for an ONNX file and `student.int8.engine` for an engine; `student` and `teacher` mean their
fp32 files. `file` is relative to the run folder, and null where nothing was made; `parity` is an
`exporters.parity.Parity`. `judged` is false where the device makes another program of the file than this machine can
judge: whatever was found with that file here is not shown as its own. `optimise` is false for int8 within fp16. A row
without these two is judged, and not mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, get_args

from compressor.report.measured import ClassAccuracy, Difference, Differences, Proportion, Scores
from compressor.report.predicted import Prediction
from compressor.report.shipping import Format, Int8Calibration, Int8Trial, Kit, ModelName, Variant, VariantParity
from profiles.latency import LatencyStats

Facts = Mapping[str, Mapping[str, Any]]
Latencies = Mapping[str, LatencyStats]

# With fewer images, even complete agreement leaves a loss of one point possible (rule of three: 3 / 300).
ENOUGH_TO_PROVE = 300
# An image adds a part of its pixels or of the variance, hardly ever all or nothing. With fewer, a kind of image that is
# one in thirty may be missing altogether, and a bootstrap knows only what it has seen.
ENOUGH_OF_PARTS = 100

_FP16_HERE = "fp16 is judged as ONNX Runtime computes it on a CPU, partly in fp32."


def latencies_of(facts: Facts) -> dict[str, LatencyStats]:
    """What was measured on this host, by key."""
    return {
        _key(name): LatencyStats.model_validate(found)
        for name, found in facts["latency"]["latencies"].items()
        if "skipped" not in found
    }


def host_and_target(
    key: str, latencies: Latencies, merged: Latencies
) -> tuple[LatencyStats | None, LatencyStats | None]:
    """The latency on this host, and that on the target: one measurement where the host is the target."""
    here = latencies.get(key)
    return here, here if here is not None and here.is_target else merged.get(key)


def variants_of(
    facts: Facts,
    latencies: Latencies,
    merged: Latencies,
    failures: Mapping[str, str] = MappingProxyType({}),
    parities: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> tuple[Variant, ...]:
    """Student first, each with its ONNX files before its engines.

    Args:
        latencies, merged: of this host and of the target, by key.
        failures, parities: what else the target said, by key: see `assemble.build_report`.
    """
    stages: tuple[tuple[str, Format], ...] = (("precision", "onnx"), ("engine", "engine"))
    found = [
        _variant(entry, format_, facts, latencies, merged, failures, parities)
        for stage, format_ in stages
        for entry in facts.get(stage, {}).get("variants", ())
    ]
    return tuple(sorted(found, key=lambda variant: get_args(ModelName).index(variant.model)))


def int8_of(facts: Facts) -> tuple[Int8Calibration, ...]:
    """How each int8 file was calibrated, with what the images say that nothing was chosen on."""
    return tuple(_calibration(entry, facts) for entry in facts.get("precision", {}).get("int8", ()))


def notes_of(facts: Facts) -> tuple[str, ...]:
    """What holds for all artefacts of a stage."""
    precision, engine = facts.get("precision", {}), facts.get("engine", {}).get("note")
    half = any(map(_judged_with_fp16, precision.get("variants", ())))
    return (
        *precision.get("notes", ()),
        *((_FP16_HERE,) if half else ()),
        *(() if engine is None else (engine,)),
    )


def kit_of(facts: Facts) -> Kit | None:
    kit = facts.get("kit", {}).get("kit")
    return None if kit is None else Kit.model_validate(kit)


def scores_of(found: Mapping[str, Any], metric: str) -> Scores:
    """One metric of {"evidence": ..., "eval": ...}; either may be missing or empty."""
    values = {where: (found.get(where) or {}).get(metric) for where in ("evidence", "eval")}
    return Scores(**{where: Proportion(**value) for where, value in values.items() if value is not None})


def _differences_of(judged: Mapping[str, Any]) -> Differences:
    values = {where: (judged.get(where) or {}).get("accuracy_difference") for where in ("evidence", "eval")}
    return Differences(**{where: Difference(**value) for where, value in values.items() if value is not None})


def _class_accuracy_of(judged: Mapping[str, Any]) -> tuple[ClassAccuracy, ...]:
    """Of the set with more labelled images."""
    sets = [(judged.get(where) or {}).get("class_accuracy") or () for where in ("eval", "evidence")]
    larger = max(sets, key=lambda rows: sum(row["num_images"] for row in rows))
    return tuple(ClassAccuracy(**row) for row in larger)


def enough_to_prove(agreement: Proportion) -> int:
    """So many images have to be behind an interval before it proves a limit."""
    return ENOUGH_TO_PROVE if agreement.of == "images" else ENOUGH_OF_PARTS


def _judged_with_fp16(entry: Mapping[str, Any]) -> bool:
    """Whether an ONNX file that is fp16, or int8 within fp16, was judged on this machine."""
    mixed = entry["precision"] == "int8" and not entry.get("optimise", True)
    return entry["file"] is not None and entry.get("judged", True) and (entry["precision"] == "fp16" or mixed)


def _variant(
    entry: Mapping[str, Any],
    format_: Format,
    facts: Facts,
    latencies: Latencies,
    merged: Latencies,
    failures: Mapping[str, str],
    parities: Mapping[str, Mapping[str, Any]],
) -> Variant:
    key = f"{entry['model']}.{entry['precision']}{'' if format_ == 'onnx' else '.engine'}"
    judged, parity = facts["report"].get("variants", {}).get(key, {}), entry.get("parity")
    if not entry.get("judged", True):
        judged, parity = {}, None
    host, target = host_and_target(key, latencies, merged)
    predicted = facts["latency"].get("predicted", {}).get(key)
    return Variant(
        model=entry["model"],
        format=format_,
        precision=entry["precision"],
        path=entry["file"],
        made_for=entry["made_for"],
        size_mib=entry.get("size_mib"),
        sha256=entry.get("sha256"),
        parity=parity
        and VariantParity(
            max_rel=parity["max_rel"], top1_agreement=parity["top1_agreement"], num_images=parity["count"]
        ),
        parity_target=VariantParity.model_validate(parities[key]) if key in parities else None,
        agreement=scores_of(judged, "agreement"),
        agreement_with_fp32=scores_of(judged, "agreement_with_fp32"),
        accuracy=scores_of(judged, "student_accuracy"),
        accuracy_difference=_differences_of(judged),
        class_accuracy=_class_accuracy_of(judged),
        mean_iou=scores_of(judged, "mean_iou"),
        mean_iou_masks=scores_of(judged, "student_mean_iou"),
        latency_host=host,
        latency_target=target,
        latency_predicted=predicted and Prediction.model_validate(predicted),
        failed_on_target=failures.get(key),
        note="; ".join(_notes(entry.get("note"), facts["latency"]["latencies"].get(key, {}).get("skipped"))) or None,
    )


def _notes(made: str | None, latency: str | None) -> Iterator[str]:
    if made is not None:
        yield made
    if latency is not None and latency != made:
        yield f"latency {latency if latency.startswith('skipped') else f'skipped: {latency}'}"


def _calibration(entry: Mapping[str, Any], facts: Facts) -> Int8Calibration:
    judged = facts["report"].get("variants", {}).get(f"{entry['model']}.int8", {})
    agreement = scores_of(judged, "agreement_with_fp32").larger
    trials = [{name: trial.get(name) for name in Int8Trial.model_fields} for trial in entry.get("trials", ())]
    return Int8Calibration.model_validate(
        {
            **entry,
            "trials": trials,
            "agreement_with_fp32": agreement,
            "limit_proven": agreement is not None
            and agreement.n >= enough_to_prove(agreement)
            and agreement.most_points_lost <= entry["max_drop"],
        }
    )


def _key(name: str) -> str:
    return name if "." in name else f"{name}.fp32"

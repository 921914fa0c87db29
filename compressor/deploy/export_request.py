"""What a user asks of `compress export`, from the words of the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import UsageFault
from compressor.inputs.named import check_image_folder
from profiles.catalogue import load_target
from profiles.schema import DeviceProfile, Precision


@dataclass(frozen=True)
class ExportRequest:
    """What a user asks of an export.

    Attributes:
        source: the fp32 ONNX classifier.
        images: a folder with images of its task.
        mean, std: what its input is normalised with outside the file, per channel; None where it takes [0, 1].
        evaluation: more images, only ever reported on.
    """

    source: Path
    images: Path
    target: DeviceProfile
    out: Path
    precisions: tuple[Precision, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    evaluation: Path | None = None
    max_drop: float = 1.0
    max_latency_ms: float | None = None
    max_size_mib: float | None = None
    seed: int = 0


def export_request(
    *,
    source: Path,
    images: Path,
    target: str,
    out: Path | None,
    precisions: str | None,
    mean: str | None,
    std: str | None,
    evaluation: Path | None,
    max_drop: float,
    max_latency_ms: float | None,
    max_size_mib: float | None,
    seed: int,
) -> ExportRequest:
    """A request from the words of a command line.

    Raises:
        UsageFault: a word does not parse, or a limit is no limit.
        ProfileError: there is no such target.
        InputRefused: a folder is not there.
    """
    check_image_folder("--samples", images)
    if evaluation is not None:
        check_image_folder("--eval", evaluation)
    profile = load_target(target)
    numbers = {"--mean": _numbers("--mean", mean), "--std": _numbers("--std", std)}
    if (mean is None) != (std is None):
        raise UsageFault(
            "Only one of --mean and --std is given.",
            "They go together.",
            "Give both, or neither if the file takes images in [0, 1].",
        )
    return ExportRequest(
        source=source.absolute(),
        images=images.absolute(),
        target=profile,
        out=(out or Path("exports") / f"{source.stem}-{profile.name}").absolute(),
        precisions=None if precisions is None else _precisions(precisions, profile),
        mean=numbers["--mean"],
        std=numbers["--std"],
        evaluation=None if evaluation is None else evaluation.absolute(),
        max_drop=max_drop,
        max_latency_ms=_limit("--max-latency-ms", max_latency_ms),
        max_size_mib=_limit("--max-size-mib", max_size_mib),
        seed=seed,
    )


def _numbers(flag: str, words: str | None) -> tuple[float, ...] | None:
    if words is None:
        return None
    try:
        numbers = tuple(float(word) for word in words.split(","))
    except ValueError:
        numbers = ()
    usable = numbers and all(map(math.isfinite, numbers)) and (flag == "--mean" or min(numbers) > 0)
    if not usable:
        raise UsageFault(
            f"{flag} {words} is not a list of numbers per channel.",
            "Finite numbers, and above 0 for --std, were expected, such as 0.5,0.5,0.5.",
            "Correct the flag and run the command again.",
        )
    return numbers


def _limit(flag: str, number: float | None) -> float | None:
    if number is None or (math.isfinite(number) and number > 0):
        return number
    raise UsageFault(
        f"{flag} is {number:g}.",
        "A limit is a finite number above 0.",
        "Correct the flag, or leave it out to take the target's own limit.",
    )


def _precisions(words: str, target: DeviceProfile) -> tuple[Precision, ...]:
    """fp32 is always among them: the others are judged by it."""
    wanted = set(words.split(","))
    if unknown := sorted(wanted - set(target.precisions)):
        raise UsageFault(
            f"--precisions has {', '.join(unknown)}.",
            f"{target.title} takes {', '.join(target.precisions)}.",
            "Name some of these, separated by commas.",
        )
    return tuple(precision for precision in target.precisions if precision in wanted | {"fp32"})

"""The configuration of a run: every setting, its default, its meaning and where its value came from.

Defaults < a YAML file (`--config run.yaml`) < flags. One frozen model per section; a setting's name is its
dotted path, such as `distill.method`, and its description is its help text. Nothing outside this file holds a
default of a run, and nothing here imports torch or anything slow, so that `compress --help` answers at once.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from compressor import __version__
from compressor.deprecated import SETTINGS as FORMER
from compressor.durations import seconds_of, written
from compressor.errors import UsageFault
from compressor.inputs.card import CHANNELS, MULTI_LABEL, MULTI_LABEL_EXPECTED
from compressor.inputs.own_code import is_own_name, module_path
from compressor.stages import atomic_write_text
from compressor.yaml_files import brief, read_yaml


def _absolute(path: Path) -> Path:
    """Absolute without following links: a teacher keeps the name that the user gave it."""
    if "\0" in str(path):
        raise ValueError("a path has the character NUL in it", "a path is a name that the system takes")
    with suppress(RuntimeError):  # `~` before something that is no user's name is part of a file's name
        path = path.expanduser()
    return path.absolute()


def _target(value: str) -> str:
    """A device is called by its name; a profile of the user's own is a file; `@` and a power mode may follow either."""
    is_file = value.partition("@")[0].endswith((".yaml", ".yml")) or "/" in value
    return str(_absolute(Path(value))) if is_file else value


def _run_folder(known: Mapping[str, Any]) -> Path:
    """The default run folder, from the settings declared before it."""
    device, at, mode = Path(known["target"]).name.partition("@")
    device = device.removesuffix(".yaml").removesuffix(".yml")
    return Path("runs") / f"{known['teacher'].file.stem}-{device}{at}{mode}"


def _split(value: object) -> object:
    """`0.5,0.5,0.5`, `32x32` and `32,32`, as a shell passes them, become tuples of their parts."""
    return tuple(value.replace("x", ",").split(",")) if isinstance(value, str) else value


def _square(value: object) -> object:
    """One number is a square."""
    parts = (value,) if isinstance(value, int) else _split(value)
    return parts * 2 if isinstance(parts, tuple) and len(parts) == 1 else parts


def _no_multi_label(value: object) -> object:
    """Refused with its reason: it is no misspelling of a task."""
    if value in MULTI_LABEL:
        raise ValueError(
            f"--task is {value!r}",
            f"{MULTI_LABEL_EXPECTED}; --task regression distils the logits as numbers, and the sigmoid is applied to "
            "those of the student",
        )
    return value


def _duration(value: object) -> str:
    """`90m`, `1h30m` and `5400s` are one budget: the same text, and the same fingerprint of what it decides."""
    try:
        return written(seconds_of(value if isinstance(value, str) else f"{value}"))
    except ValueError:
        number = isinstance(value, int | float) or (isinstance(value, str) and value.replace(".", "").isdigit())
        missing = ", a number without a unit" if number else ""
        raise ValueError(
            f"--budget is {brief(value)}{missing}",
            "--budget is whole hours, minutes and seconds with their units, such as 90s, 30m or 1h30m",
        ) from None


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
PerChannel = Annotated[tuple[float, ...], BeforeValidator(_split)]
Pixels = Annotated[int, Field(ge=4)]
Size = Annotated[tuple[Pixels, Pixels], BeforeValidator(_square)]
Duration = Annotated[str, BeforeValidator(_duration)]
Precisions = Annotated[tuple[Literal["fp32", "fp16", "int8"], ...], BeforeValidator(_split)]


class Section(BaseModel):
    """Frozen, without unknown keys, infinities or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True)


class TeacherConfig(Section):
    """What the teacher is; whatever its own card says may be left out."""

    file: AbsolutePath = Field(
        description="the trained teacher: our checkpoint, weights of a known architecture, or an ONNX file"
    )
    architecture: str | None = Field(
        None,
        description="architecture of bare weights, such as resnet18, or module:factory of your own code, which then "
        "runs, such as mynet:build; default: the one that they fit",
    )
    weights: str | None = Field(
        None, min_length=1, description="where in a training checkpoint the weights are, such as model_ema"
    )
    trust_pickle: bool = Field(
        False, description="let the teacher's file run code, to get its weights or to run it as it is"
    )
    code: AbsolutePath | None = Field(
        None, description="Python file with the factory of --arch, or with the classes of a teacher of --trust-pickle"
    )
    card: AbsolutePath | None = Field(None, description="YAML card of a bare state dict; default: t.yaml beside t.pt")
    feature_layer: str | None = Field(None, description="module whose output is the last feature map")
    classifier_layer: str | None = Field(None, description="the final linear layer")
    mean: PerChannel | None = Field(None, description="what the teacher subtracts per channel, such as 0.5,0.5,0.5")
    std: PerChannel | None = Field(None, description="what the teacher then divides by per channel")
    input_size: Size | None = Field(None, description="height and width of the teacher's input, such as 32x32")
    class_names: AbsolutePath | None = Field(None, description="text file, one class per line in index order")
    task: Annotated[
        Literal["classification", "segmentation", "regression"] | None, BeforeValidator(_no_multi_label)
    ] = Field(None, description="what its outputs mean; default: what its card or its architecture says")

    @model_validator(mode="after")
    def _consistent(self) -> TeacherConfig:
        if self.code is not None and not self.trust_pickle and not is_own_name(self.architecture):
            raise ValueError(
                "--code is given without --trust-pickle and without --arch module:factory",
                "--code goes with one of them, as it runs",
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("only one of --mean and --std is given", "--mean and --std go together")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or len(self.mean) not in CHANNELS.values():
                raise ValueError(
                    f"--mean has {len(self.mean)} and --std has {len(self.std)} numbers",
                    "--mean and --std have one number per channel, 1, 3 or 4",
                )
            if min(self.std) <= 0:
                raise ValueError(f"--std has {min(self.std)}", "every number of --std is above 0")
        return self


class SamplesConfig(Section):
    """The real images: a few of the task, whose split is made once before anything trains, and any others."""

    folder: AbsolutePath | None = Field(
        None,
        description="a folder with a few real images, flat or one folder per class; without: a method that needs none",
    )
    select_fraction: float = Field(0.1, ge=0, lt=1, description="share of the images kept for choosing")
    evidence_fraction: float = Field(0.15, ge=0, lt=1, description="share of the images kept for the report")
    max_images: int | None = Field(None, ge=1, description="use at most this many images; default: all")
    pool: AbsolutePath | None = Field(
        None, description="a folder of any unlabelled images, such as collected ones: trained on where a method can"
    )
    max_pool_images: int = Field(20_000, ge=2, description="use at most this many images of --pool, spread evenly")

    @model_validator(mode="after")
    def _consistent(self) -> SamplesConfig:
        if self.select_fraction + self.evidence_fraction >= 1:
            raise ValueError(
                f"--select-fraction {self.select_fraction} and --evidence-fraction {self.evidence_fraction} "
                "leave no images to train on",
                "the sum of --select-fraction and --evidence-fraction is below 1",
            )
        return self


class StudentConfig(Section):
    """The small network."""

    spec: str = Field(
        "auto",
        min_length=1,
        description="auto (the most capable that fits the limits), prune:R, width:R of the teacher, or an architecture",
    )
    anchors: AbsolutePath | None = Field(
        None, description="an earlier run with measured rows of this target: they correct what is predicted for it"
    )


class DistillConfig(Section):
    """How the student learns from the teacher."""

    method: str = Field(
        "auto", min_length=1, description="auto (what fits the images and the teacher), or one of `compress methods`"
    )
    effort: Literal["quick", "standard", "full"] = Field(
        "standard", description="how long to train; docs/effort.md has the times"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the training")
    options: dict[str, bool | int | float | str] = Field(
        {}, description="a setting of the method itself, as name=value; may be repeated"
    )


class OnnxConfig(Section):
    """The exported file."""

    opset: int | None = Field(None, ge=13, description="ONNX opset; default: the highest that the target reads")


class LimitsConfig(Section):
    """What an artefact must hold to be recommended."""

    max_drop: float = Field(
        1.0, ge=0, le=100, description="points of agreement that fp16 or int8 may lose against their fp32 file"
    )
    max_latency_ms: float | None = Field(None, gt=0, description="longest p50 of one image; default: the target's")
    max_size_mib: float | None = Field(None, gt=0, description="largest file; default: the target's")
    max_params_m: float | None = Field(None, gt=0, description="most parameters, in millions; default: the target's")
    accept_predicted: bool = Field(
        False, description="let a predicted latency decide about --max-latency-ms; otherwise it stays unproven"
    )


class PrecisionConfig(Section):
    """The fp16 and int8 files."""

    precisions: Precisions | None = Field(
        None, description="which to make, such as fp32,fp16; default: all that the target takes"
    )
    calibration_images: int = Field(
        512, ge=0, description="generated images that int8 is calibrated on beside the real ones"
    )

    @model_validator(mode="after")
    def _consistent(self) -> PrecisionConfig:
        if self.precisions is not None and "fp32" not in self.precisions:
            raise ValueError(f"--precisions {','.join(self.precisions)} has no fp32", "--precisions holds fp32")
        return self


class EngineConfig(Section):
    """TensorRT engines, where this machine can build them for the target."""

    require: bool = Field(False, description="end with exit code 3 where no engine can be built")
    max_batch: int = Field(1, ge=1, description="largest batch of the engine; 1: a static one, for latency")


class KitConfig(Section):
    """The folder that builds, checks and times the student on the device itself."""

    images: bool = Field(False, description="put a few of the held-out samples into the kit instead of patterns")
    teacher: bool = Field(
        False, description="put the teacher into the kit as well, to compare on the device; its weights then lie there"
    )


class LatencyConfig(Section):
    """How latency is measured on this machine."""

    warmup_s: float = Field(0.1, ge=0, description="seconds of runs of each session that are not counted")
    window_s: float = Field(0.1, gt=0, description="seconds of runs in one window; sessions that agree end the timing")
    max_s: float = Field(10.0, gt=0, description="seconds after which the timing ends as unstable")
    threads: int | None = Field(None, ge=1, description="threads of the runtime; default: the faster of one and all")

    @model_validator(mode="after")
    def _consistent(self) -> LatencyConfig:
        if self.max_s < self.window_s:
            raise ValueError(
                f"--latency-max-s {self.max_s} is below --latency-window-s {self.window_s}",
                "--latency-max-s has room for at least one window",
            )
        return self


class ReportConfig(Section):
    """What the report is told and shows."""

    eval: AbsolutePath | None = Field(None, description="more images, in class folders or not; only ever reported on")
    synthetic_sheet: bool = Field(False, description="add a contact sheet of generated images")
    skip_robustness: bool = Field(
        False, description="do not judge teacher and student on disturbed copies of held-out images"
    )


class GatesConfig(Section):
    """What the report is judged by; it trains and measures nothing."""

    file: AbsolutePath | None = Field(None, description="YAML file of gates (docs/gates.md)")
    limits: tuple[str, ...] = Field(
        (), description="a gate, such as agreement:min=97%,min_samples=200; may be repeated"
    )
    baseline: AbsolutePath | None = Field(
        None, description="report.json of an earlier run, or its folder, that gates with max_regression compare with"
    )
    require_measured: bool = Field(False, description="fail a gate whose latency is only predicted; otherwise it warns")


class RunConfig(Section):
    """All settings of a run. Every path is absolute; `out` is never None."""

    teacher: TeacherConfig
    samples: SamplesConfig
    student: StudentConfig = Field(default_factory=StudentConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)
    onnx: OnnxConfig = Field(default_factory=OnnxConfig)
    precision: PrecisionConfig = Field(default_factory=PrecisionConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    kit: KitConfig = Field(default_factory=KitConfig)
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    latency: LatencyConfig = Field(default_factory=LatencyConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    gates: GatesConfig = Field(default_factory=GatesConfig)
    target: Annotated[str, AfterValidator(_target)] = Field(
        "cpu", min_length=1, description="device to deploy to; `compress targets list` lists them"
    )
    budget: Duration | None = Field(
        None,
        description="wall clock of the whole command, such as 30m or 1h30m: cuts the steps of --effort to what fits",
    )
    board: str | None = Field(
        None, min_length=1, description="the device as user@host: the kit goes there over ssh, its result comes back"
    )
    ssh_config: AbsolutePath | None = Field(None, description="ssh configuration for --board; default: your own")
    board_timeout_s: float = Field(3600.0, gt=0, description="seconds after which the board is given up")
    seed: int = Field(0, ge=0, lt=2**63, description="start of every random sequence")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    out: AbsolutePath = Field(
        default_factory=_run_folder, description="run folder; default: runs/<teacher's name>-<target>"
    )

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        # A run folder below an input folder would change that input with every file that it writes.
        inputs = {"--samples": self.samples.folder, "--pool": self.samples.pool, "--eval": self.report.eval}
        for flag, folder in inputs.items():
            if folder is not None and self.out.is_relative_to(folder):
                raise ValueError(
                    f"the run folder {self.out} lies inside {flag} {folder}", f"--out is outside of {flag}"
                )
        return self


def _fields(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            yield from _fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def holds_path(annotation: object) -> bool:
    """Whether values of this type are paths."""
    return annotation is Path or any(holds_path(part) for part in get_args(annotation))


FIELDS: Mapping[str, FieldInfo] = dict(_fields(RunConfig))
"""Every setting by its dotted name, with its description and default."""

FLAGS: Mapping[str, str] = {
    "teacher.file": "--teacher",
    "teacher.architecture": "--arch",
    "teacher.weights": "--weights",
    "teacher.trust_pickle": "--trust-pickle",
    "teacher.code": "--code",
    "teacher.card": "--card",
    "teacher.feature_layer": "--feature-layer",
    "teacher.classifier_layer": "--classifier-layer",
    "teacher.mean": "--mean",
    "teacher.std": "--std",
    "teacher.input_size": "--input-size",
    "teacher.class_names": "--class-names",
    "teacher.task": "--task",
    "samples.folder": "--samples",
    "samples.select_fraction": "--select-fraction",
    "samples.evidence_fraction": "--evidence-fraction",
    "samples.max_images": "--max-images",
    "samples.pool": "--pool",
    "samples.max_pool_images": "--max-pool-images",
    "student.spec": "--student",
    "student.anchors": "--anchors",
    "distill.method": "--method",
    "distill.effort": "--effort",
    "distill.precision": "--precision",
    "distill.options": "--option",
    "onnx.opset": "--opset",
    "precision.precisions": "--precisions",
    "precision.calibration_images": "--calibration-images",
    "engine.require": "--require-engine",
    "engine.max_batch": "--max-batch",
    "kit.images": "--kit-images",
    "kit.teacher": "--kit-teacher",
    "limits.max_drop": "--max-drop",
    "limits.max_latency_ms": "--max-latency-ms",
    "limits.max_size_mib": "--max-size-mib",
    "limits.max_params_m": "--max-params-m",
    "limits.accept_predicted": "--accept-predicted",
    "latency.warmup_s": "--latency-warmup-s",
    "latency.window_s": "--latency-window-s",
    "latency.max_s": "--latency-max-s",
    "latency.threads": "--latency-threads",
    "report.eval": "--eval",
    "report.synthetic_sheet": "--synthetic-sheet",
    "gates.file": "--gates",
    "gates.limits": "--gate",
    "gates.baseline": "--baseline",
    "gates.require_measured": "--require-measured",
    "report.skip_robustness": "--skip-robustness",
    "target": "--target",
    "budget": "--budget",
    "board": "--board",
    "ssh_config": "--ssh-config",
    "board_timeout_s": "--board-timeout-s",
    "seed": "--seed",
    "device": "--device",
    "out": "--out",
}
"""The flag of every setting."""

REPEATED = ("gates.limits",)
"""Settings whose flag may be given several times, each time with one value."""

CONFIGURATION = {
    "kind": "configuration file",
    "expected": "A configuration is a YAML file of settings by section, such as `distill: {method: hidfd}`.",
    "flag": "--config",
}
MOST_PROBLEMS = 50  # more than anyone reads; a hint for each of a million keys takes hours
_PATHS = {dotted for dotted, field in FIELDS.items() if holds_path(field.annotation)}
_OPTIONS = "distill.options"
_SECTIONS = (*dict.fromkeys(dotted.partition(".")[0] for dotted in FIELDS if "." in dotted), _OPTIONS)


@dataclass(frozen=True)
class Resolved:
    """A configuration and the origin of every setting: "default", a flag, or the name of the YAML file.

    Attributes:
        warnings: of names of earlier versions.
        from_file: the settings that the YAML file gives and no flag does; an origin may be a file of any name.
    """

    config: RunConfig
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    from_file: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Given:
    """A value, where it came from, and what a message calls it."""

    value: object
    origin: str
    label: str


@dataclass(frozen=True)
class _Problem:
    received: str
    expected: str


def get(config: RunConfig, dotted: str) -> object:
    """The value of a setting by its dotted name, such as `distill.method` or `distill.options.latent_dim`."""
    if _is_option(dotted):
        return config.distill.options[_option(dotted)]
    value: object = config
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def section_settings(config: RunConfig, section: str) -> dict[str, Any]:
    """The values of one section under the names that a user knows, without paths: a file counts by its content."""
    named = {name: get(config, name) for name in FIELDS if name.startswith(f"{section}.") and name not in _PATHS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


def resolve(flags: Mapping[str, object], file: Path | None) -> Resolved:
    """Layer defaults, the YAML file and the flags, and check everything at once.

    Args:
        flags: values by dotted name, None where a flag was not given; relative to the working directory.
        file: the YAML file; paths in it are relative to its own folder.

    Raises:
        UsageFault: names every problem that was found.
    """
    problems: list[_Problem] = []
    warnings: list[str] = []
    given: dict[str, _Given] = {}
    if file is not None:
        for dotted, value in _flatten(read_yaml(file, **CONFIGURATION), file.name, problems):
            label = f"{dotted!r} in {file.name}"
            if dotted in FORMER:
                warnings.append(FORMER[dotted].warning(label))
                dotted = FORMER[dotted].now
                if not dotted:
                    continue
            if dotted in given:
                problems.append(_Problem(f"{label} is given twice", "each setting is given once"))
            given[dotted] = _Given(_beside(file, dotted, value), file.name, label)
    from_file = set(given)
    present = {dotted: value for dotted, value in flags.items() if value is not None}
    for dotted, value in _flatten(present, "the flags", problems):
        flag = FLAGS.get(dotted, FLAGS[_OPTIONS])
        label = flag if dotted in FLAGS else f"{flag} {_option(dotted)}"
        given[dotted] = _Given(value, flag, label)
        from_file.discard(dotted)
    _name_the_code(given, file)
    try:
        config = RunConfig.model_validate(_nest(given))
    except ValidationError as error:
        problems += _explain(error, given)
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UsageFault(
            f"The configuration has {count}: {'; '.join(problem.received for problem in problems)}.",
            f"What fits: {'; '.join(dict.fromkeys(problem.expected for problem in problems))}.",
            "Correct this and run the same command again; `compress run --help` explains every setting.",
        )
    names = [name for name in FIELDS if name != _OPTIONS or not config.distill.options]
    origins = {name: given[name].origin if name in given else "default" for name in names}
    origins |= {name: entry.origin for name, entry in given.items()}
    return Resolved(config, origins, tuple(warnings), frozenset(from_file))


def _name_the_code(given: dict[str, _Given], file: Path | None) -> None:
    """The file of `--arch module:factory`, by its whole path: a run may go on from another folder."""
    named = given.get("teacher.architecture")
    if named is not None and is_own_name(named.value) and "teacher.code" not in given:
        folder = file.absolute().parent if file is not None and named.origin == file.name else Path.cwd()
        path = module_path(folder, str(named.value))
        given["teacher.code"] = _Given(str(path), named.origin, named.label)


def save_resolved(resolved: Resolved, path: Path) -> None:
    """Write every value with its origin, as YAML that `resolve` reads back into an equal configuration."""
    lines = [f"# compress {__version__}: every setting of a run and where it came from; --config reads it."]
    for name, value in resolved.config.model_dump(mode="json").items():
        lines += _render(name, value, name, resolved.origins)
    atomic_write_text(path, "\n".join(lines) + "\n")


def _render(key: str, value: object, dotted: str, origins: Mapping[str, str]) -> Iterator[str]:
    import yaml

    indent = "  " * dotted.removesuffix(key).count(".")
    if isinstance(value, Mapping) and value:
        yield f"{indent}{key}:"
        for child, inner in value.items():
            yield from _render(child, inner, f"{dotted}.{child}", origins)
        return
    flow = None if isinstance(value, list) else False  # None: [1, 2] on one line; False: no braces
    line = yaml.safe_dump({key: value}, default_flow_style=flow, width=sys.maxsize).rstrip("\n")
    if "\n" in line:  # a line break inside a text; in double quotes it is an escape
        line = yaml.safe_dump({key: value}, default_style='"', width=sys.maxsize).rstrip("\n")
    yield f"{indent}{line}  # {origins[dotted]}"


def _beside(file: Path, dotted: str, value: object) -> object:
    """A relative path in a file starts at the folder of that file; other values stay as they are."""
    if not isinstance(value, str) or value.startswith("~"):
        return value
    is_path = dotted in _PATHS or (dotted == "target" and "\0" not in value and _target(value) != value)
    return str(file.absolute().parent / value) if is_path else value


def _is_option(dotted: str) -> bool:
    return dotted.startswith(f"{_OPTIONS}.")


def _option(dotted: str) -> str:
    return dotted.removeprefix(f"{_OPTIONS}.")


def _flatten(
    values: Mapping[str, object], source: str, problems: list[_Problem], prefix: str = ""
) -> Iterator[tuple[str, object]]:
    """Yield every setting that is or was known with its value; append the unknown ones to `problems`."""
    for key, value in values.items():
        if len(problems) >= MOST_PROBLEMS:
            return
        dotted = f"{prefix}{key}"
        if dotted in _SECTIONS and value is None:  # its lines are all commented out
            continue
        if dotted in _SECTIONS and not isinstance(value, Mapping):
            received = f"{dotted!r} in {source} is {brief(value)} and not a section"
            problems.append(_Problem(received, f"{dotted} holds {_siblings(dotted)}"))
        elif dotted not in _SECTIONS and (dotted in FIELDS or dotted in FORMER or _is_option(dotted)):
            yield dotted, value
        elif isinstance(value, Mapping) and (value or dotted in _SECTIONS):
            yield from _flatten(value, source, problems, f"{dotted}.")
        else:
            problems.append(_unknown(dotted, source))


def _siblings(section: str) -> str:
    """The settings of a section, in words; of the top level, its sections as well."""
    if section == _OPTIONS:
        return "settings of the method as name: value"
    inside = [name.removeprefix(f"{section}.") for name in FIELDS if name.startswith(f"{section}.")]
    names = inside or list(dict.fromkeys(name.partition(".")[0] for name in FIELDS))
    return ", ".join(names)


def _unknown(dotted: str, source: str) -> _Problem:
    # A setting is often right in its last part alone, or is called by its flag.
    short = {name.rpartition(".")[2]: name for name in FIELDS}
    short |= {flag.removeprefix("--").replace("-", "_"): name for name, flag in FLAGS.items()}
    last = dotted.rpartition(".")[2]
    close = [short[last]] if last in short else difflib.get_close_matches(dotted, FIELDS, n=1)
    close = close or [short[name] for name in difflib.get_close_matches(last, short, n=1)]
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    section = dotted.partition(".")[0]
    if section not in _SECTIONS and close:
        section = close[0].partition(".")[0]
    where = section if section in _SECTIONS else "the top level"
    return _Problem(f"unknown key {dotted!r} in {source}{hint}", f"{where} holds {_siblings(section)}")


def _nest(given: Mapping[str, _Given]) -> dict[str, Any]:
    nested: dict[str, Any] = {section: {} for section in _SECTIONS if section != _OPTIONS}
    for dotted, entry in given.items():
        section, _, name = dotted.partition(".")
        if _is_option(dotted):
            nested[section].setdefault("options", {})[_option(dotted)] = entry.value
        elif name:
            nested[section][name] = entry.value
        else:
            nested[dotted] = entry.value
    return nested


def _explain(error: ValidationError, given: Mapping[str, _Given]) -> list[_Problem]:
    """One problem per setting or rule; pydantic lists a union by its members, and `out` without a teacher."""
    problems: dict[str, _Problem] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        dotted = ".".join(parts[:3] if parts[:2] == _OPTIONS.split(".") else parts[:2])
        if item["type"] == "value_error":
            received, expected = item["ctx"]["error"].args
            problems[received] = _Problem(received, expected)
        elif item["type"] == "missing":
            description = f"{FLAGS[dotted]} names {FIELDS[dotted].description}"
            problems[dotted] = _Problem(f"{FLAGS[dotted]} is missing", description)
        elif dotted in given:
            entry = given[dotted]
            should = "should be a number, a text, true or false" if _is_option(dotted) else item["msg"]
            should = re.sub(r"^\w+ should", "should", should)
            problems[dotted] = _Problem(f"{entry.label} is {brief(entry.value)}", f"{entry.label} {should}")
    return list(problems.values())

"""A profile as plain text: what `compress profile` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressor.deploy.latencies import slower_trials
from compressor.deploy.profile_record import LatencyProfile, ProfiledFile, ProfileTarget
from compressor.layout import columns
from compressor.report import text
from compressor.report.untrusted import printable
from profiles.latency import LatencyStats
from profiles.layer_times import LayerTimes

MOST_LAYERS = 10
NAME, MODULE = 40, 44
NOTABLE = 0.02  # of a prediction; smaller parts are left out


def profile_text(profile: LatencyProfile, folder: str) -> str:
    """The tables, then what is to be known of them; `folder` is where pictures and profile.json lie."""
    measured = [file for file in profile.files if file.measured]
    elsewhere = [file for file in profile.files if file.predicted or file.merged]
    lines = [f"{profile.source} on {_device(profile.target)}"]
    if measured:
        lines += ["", *_conditions(measured[0].measured[0]), "", *columns(_measured_rows(measured))]
        for file in measured:
            if file.layers is not None:
                lines += ["", *_layers(file, file.layers, folder)]
    if elsewhere:
        lines += ["", *columns(_elsewhere_rows(elsewhere)), *_basis(elsewhere)]
    doubts = [*_doubts(profile)]
    if doubts:
        lines += ["", *(line for doubt in doubts for line in columns([("-", doubt)]))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _device(target: ProfileTarget) -> str:
    """Title and power mode; the title of a device in a mode that was asked for says it already."""
    mode = target.power_mode
    return target.title if mode is None or target.title.endswith(f" in mode {mode}") else f"{target.title}, {mode}"


def _conditions(stats: LatencyStats) -> list[str]:
    """Where and how it was measured: the same for all files of one machine."""
    software = [f"{name} {version}" for name, version in stats.versions.items() if name not in ("os", "python")]
    settings = [
        *([f"{stats.cpu_mhz:.0f} MHz"] if stats.cpu_mhz else []),
        *([f"load {stats.load_average:.1f}"] if stats.load_average is not None else []),
        *([f"at {stats.pace:.0%} of its reference pace"] if stats.pace is not None else []),
        *stats.conditions,
    ]
    return columns([("measured on", ", ".join([stats.device, *settings, *software]))])


def _measured_rows(files: Sequence[ProfiledFile]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("file", "batch", "p50 ms", "95 % interval", "as timed", "p90", "p99", "images/s", "threads", "tried", "memory")
    ]
    for file in files:
        for stats in file.measured:
            first = stats is file.measured[0]
            trials = [f"{trial.threads}: {text.significant(trial.latency_p50_ms)}" for trial in slower_trials(stats)]
            rows.append(
                (
                    printable(file.name, NAME) if first else "",
                    str(stats.batch_size),
                    text.significant(stats.latency_p50_ms) + ("" if stats.stable else " !"),
                    _interval(stats.latency_p50_interval_ms),
                    "" if stats.latency_p50_as_timed_ms is None else text.significant(stats.latency_p50_as_timed_ms),
                    text.significant(stats.latency_p90_ms),
                    text.significant(stats.latency_p99_ms),
                    text.significant(stats.throughput_ips),
                    "" if stats.threads is None else str(stats.threads),
                    ", ".join(trials),
                    text.size(file.memory.peak_mib) if first and file.memory is not None else "",
                )
            )
    return rows


def _elsewhere_rows(files: Sequence[ProfiledFile]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("file", "precision", "batch", "p50 ms", "interval", "images/s", "origin")]
    for file in files:
        name = printable(file.name, NAME)
        for stats in file.merged:
            speed = text.significant(stats.throughput_ips)
            found = text.significant(stats.latency_p50_ms)
            rows.append((name, file.precision, str(stats.batch_size), found, "", speed, f"measured on {stats.device}"))
        for guess in file.predicted:
            p50 = guess.latency_p50_ms
            between = f"{_interval(guess.latency_p50_interval_ms)} ({guess.interval_confidence:.0%})"
            speed = f"~{text.significant(1e3 * guess.batch_size / p50)}"
            row = (name, file.precision, str(guess.batch_size), f"~{text.significant(p50)}", between, speed)
            rows.append((*row, f"predicted, {guess.basis}"))
    return rows


def _basis(files: Sequence[ProfiledFile]) -> Iterator[str]:
    """What the predictions rest on, each sentence once."""
    guesses = [guess for file in files for guess in file.predicted]
    if not guesses:
        return
    yield ""
    number = max(guess.num_measurements for guess in guesses)
    # Of each file the nearest: profile.json has them all.
    anchors = dict.fromkeys(guess.anchors[0] for guess in guesses if guess.anchors)
    if number:
        yield f"The predictions rest on {text.count(number, 'measurement')}, the nearest being:"
    elif anchors:
        yield "No measurement of this device is known. The predictions rest on those of its relatives, the nearest:"
    else:
        yield "No measurement of this device or of a relative is known. The predictions rest on its peak rates and on"
        yield "what other devices reach of theirs."
    yield from (line for anchor in anchors for line in columns([("-", anchor)]))
    for file in files:
        whole_ms = sum(file.parts_ms.values())
        parts = sorted(((ms, part) for part, ms in file.parts_ms.items() if ms >= NOTABLE * whole_ms > 0), reverse=True)
        if parts:
            listed = ", ".join(f"{part} {text.significant(ms)}" for ms, part in parts)
            yield from columns([(f"{printable(file.name, NAME)}, ms by cause:", listed)])
    kinds = files[0].kernels
    if kinds:
        yield ""
        header = ("kernels", "number", "MACs", "values read and written")
        rows = [(k.kind, str(k.count), text.macs(k.macs / 1e9) if k.macs else "", f"{k.elements:,}") for k in kinds]
        yield from columns([header, *rows])


def _layers(file: ProfiledFile, layers: LayerTimes, folder: str) -> Iterator[str]:
    """By operator, then the most expensive layers."""
    threads = "" if layers.threads is None else f", {text.count(layers.threads, 'thread')}"
    yield (
        f"{printable(file.name, NAME)}: {text.count(len(layers.layers), 'layer')} of together "
        f"{text.significant(layers.sum_ms)} ms by {layers.source} (batch {layers.batch_size}{threads}; "
        "profiling itself costs time)"
    )
    operators = [
        ("operator", "layers", "ms", "share"),
        *(
            (printable(name, NAME), str(count), text.significant(time_ms), _share(time_ms / layers.sum_ms))
            for name, count, time_ms in layers.by_operator()[:5]
        ),
    ]
    yield from columns(operators, indent=2)
    longest = sorted(layers.layers, key=lambda layer: -layer.time_ms)[:MOST_LAYERS]
    against = any(layer.peak_share is not None for layer in longest)
    yield ""
    yield from columns(
        [
            ("share", "ms", "MACs", "of peak" if against else "", "operator", f"the {len(longest)} longest"),
            *(
                (
                    _share(layer.share),
                    text.significant(layer.time_ms),
                    text.macs(layer.macs / 1e9) if layer.macs else "",
                    _share(layer.peak_share) if layer.peak_share is not None else "",
                    printable(layer.operator, NAME),
                    printable(layer.module or layer.name, MODULE),
                )
                for layer in longest
            ),
        ],
        indent=2,
    )
    if file.layers_picture is not None:
        yield f"  picture: {folder}/{file.layers_picture}"


def _doubts(profile: LatencyProfile) -> Iterator[str]:
    """Every sentence once, with the file that it is of where it is not of all."""
    yield from profile.notes
    speed = profile.host_speed
    if speed is not None:
        yield (f"The peak is {text.significant(speed.fp32_gflops)} GFLOP/s in fp32 with all cores, {speed.source}.")
    said: dict[str, list[str]] = {}
    for file in profile.files:
        sentences = [*file.notes, *(doubt for guess in file.predicted for doubt in guess.doubts)]
        sentences += [warning for stats in (*file.measured, *file.merged) for warning in stats.warnings]
        for sentence in dict.fromkeys(sentences):
            said.setdefault(sentence, []).append(file.name)
    for sentence, names in said.items():
        of_all = len(names) == len(profile.files)
        yield printable(sentence if of_all else f"{', '.join(names)}: {sentence}", 400)
    if any(not stats.stable for file in profile.files for stats in file.measured):
        yield "! marks a measurement that did not settle: repeat it on a quieter machine."


def _interval(between: tuple[float, float] | None) -> str:
    return "" if between is None else f"{text.significant(between[0])} to {text.significant(between[1])}"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"

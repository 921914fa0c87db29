"""`compress profile`: how long a file takes on a device, measured where the device is here and predicted where not.

source ──> files ──┬─ this machine, or an engine on its GPU:  latency, memory, layers
                   └─ any other device:                       prediction, and what it has sent back
       ──> profile.json, and a picture of the layers of each measured file
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from compressor import __version__
from compressor.deploy.latencies import Timing
from compressor.deploy.profile_measured import measured_files
from compressor.deploy.profile_predicted import how_to_measure, predicted_files
from compressor.deploy.profile_record import (
    PROFILE,
    LatencyProfile,
    ProfiledFile,
    ProfileTarget,
    read_profile,
    write_profile,
)
from compressor.deploy.profile_sources import Found, sources_of
from compressor.errors import UsageFault
from compressor.stages import TAG, create_run_folder, exclusive, writable
from profiles.catalogue import load_target
from profiles.host import host_name
from profiles.host_speed import HostSpeed
from profiles.schema import DeviceProfile

# Longer than in a run: here a number is all that was asked for.
TIMING = Timing(warmup_s=0.2, window_s=0.25, max_s=20.0, least_sessions=12)


@dataclass(frozen=True)
class ProfileRequest:
    """What a user asks of a profile.

    Attributes:
        source: an ONNX file, an engine, or the folder of a run or an export.
        target: None: this machine's CPU, and of an engine this machine's GPU.
        batches: None: the batch that is fixed in the file, else 1.
        threads: None: the faster of one and all.
    """

    source: Path
    target: str | None = None
    out: Path | None = None
    batches: tuple[int, ...] | None = None
    threads: int | None = None

    @property
    def folder(self) -> Path:
        """Where the profile goes: by default `timings/<source>-<target>`, with the target as a run's folder has it."""
        device, at, mode = Path(self.target or "here").name.partition("@")
        device = device.removesuffix(".yaml").removesuffix(".yml")
        return self.out or Path("timings") / f"{self.source.resolve().stem}-{device}{at}{mode}"


def profile_request(
    source: Path, target: str | None, out: Path | None, batches: str | None, threads: int | None
) -> ProfileRequest:
    """A request from the words of a command line.

    Raises:
        UsageFault: the batches are no list of numbers.
    """
    if batches is None:
        return ProfileRequest(source, target, out, None, threads)
    sizes = [word.strip() for word in batches.split(",")]
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise UsageFault(
            f"--batch got {batches!r}.",
            "It takes batch sizes with commas between them.",
            "Write for example --batch 1,8.",
        )
    return ProfileRequest(source, target, out, tuple(dict.fromkeys(map(int, sizes))), threads)


def profile_source(request: ProfileRequest, note: Callable[[str], None], timing: Timing = TIMING) -> LatencyProfile:
    """Measure or predict, and write profile.json with its pictures into the request's folder.

    Raises:
        InputRefused: the source is nothing that can be profiled.
        UsageFault: no file takes the batches, an engine is for another device, or the folder is another command's.
        NotWritable: the folder cannot be written.
        ProfileError: there is no such target.
        EnvironmentFault: an engine cannot run here.
        ExportError: a file does not run here, or the target does not read it.
    """
    wanted = None if request.target is None else load_target(request.target)
    _check_folder(request.folder)
    found = sources_of(request.source, wanted)
    _check_batches(request, found)
    create_run_folder(request.folder)
    folder = request.folder
    with exclusive(folder), writable(folder), TemporaryDirectory(dir=folder, prefix=".new-") as pictures:
        profile = _profiled(request, found, wanted or load_target("cpu"), Path(pictures), note, timing)
        profile = profile.model_copy(update={"notes": (*profile.notes, *_replaced(folder, profile))})
        _replace(folder, profile, Path(pictures))
    return profile


def _profiled(
    request: ProfileRequest,
    found: Found,
    target: DeviceProfile,
    pictures: Path,
    note: Callable[[str], None],
    timing: Timing,
) -> LatencyProfile:
    # Engines were opened on this machine's GPU already, where they fit.
    here = [source for source in found.sources if source.variant.format == "engine" or target.this_host]
    elsewhere = [source for source in found.sources if source not in here]
    timing = replace(timing, threads=request.threads)
    measured: list[ProfiledFile] = []
    speed: HostSpeed | None = None
    if here:
        measured, speed = measured_files(here, target, request.batches, timing, pictures, note)
    predicted = predicted_files(elsewhere, found, request.source, target, request.batches) if elsewhere else []
    named = request.target or target.name
    on_gpu = found.kind == "engine" and request.target is None
    return LatencyProfile(
        tool_version=__version__,
        created=datetime.now(UTC),
        source=str(request.source),
        kind=found.kind,
        target=ProfileTarget(
            name="here" if on_gpu else target.name,
            title=measured[0].measured[0].device if on_gpu else target.title,
            this_host=on_gpu or target.this_host,
            power_mode=None if on_gpu else target.peaks.power_mode,
        ),
        host=host_name(),
        host_speed=speed,
        files=tuple([*measured, *predicted]),
        notes=(*found.left_out, *how_to_measure(request.source, found, predicted, target, named)),
    )


def _check_batches(request: ProfileRequest, found: Found) -> None:
    if request.batches is None or any(source.batches_of(request.batches) for source in found.sources):
        return
    raise UsageFault(
        f"--batch has {', '.join(map(str, request.batches))}, and no file here takes any of these.",
        " ".join(found.sources[0].left_out(request.batches[:1]) or ["A file with an open batch was expected."]),
        "Leave --batch out, or export the model with a dynamic batch.",
    )


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier profile."""
    if folder.is_file():
        raise _not_ours(folder, "is a file")
    held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    held = {name for name in held if name not in (TAG, ".lock") and not name.startswith(".new-")}
    if held and read_profile(folder / PROFILE) is None:
        raise _not_ours(folder, f"holds {', '.join(sorted(held)[:3])} and no {PROFILE} of ours")


def _not_ours(folder: Path, what: str) -> UsageFault:
    return UsageFault(
        f"{folder} {what}.",
        "A profile needs a new folder, an empty one, or that of an earlier profile, which it replaces.",
        "Name another folder with --out.",
    )


def _replaced(folder: Path, profile: LatencyProfile) -> tuple[str, ...]:
    """Said of an earlier profile in the folder that is of another source or target: it is gone."""
    earlier = read_profile(folder / PROFILE)
    if earlier is None:
        return ()
    same_source = Path(earlier.source).resolve() == Path(profile.source).resolve()
    if same_source and earlier.target == profile.target:
        return ()
    return (f"This replaced the profile of {earlier.source} on {earlier.target.title} that was in {folder}.",)


def _replace(folder: Path, profile: LatencyProfile, pictures: Path) -> None:
    """Put the new profile in the place of an earlier one, of whose files nothing stays and nothing else goes."""
    earlier = read_profile(folder / PROFILE)
    for file in earlier.files if earlier else ():
        if file.layers_picture is not None:
            (folder / file.layers_picture).unlink(missing_ok=True)
    for picture in pictures.iterdir():
        picture.replace(folder / picture.name)
    write_profile(profile, folder)

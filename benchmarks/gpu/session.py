"""What only a GPU can show, in the order of its worth and in pieces that go on where they were stopped.

    python -m benchmarks.gpu.session --data PACKS --work WORK --out OUT --minutes 9.5    # as often as there is time
    python -m benchmarks.gpu.session --tiny                      # every program, a few updates each, on any machine
    python -m benchmarks.gpu.session --pack FOLDER --data PACKS  # smaller copies of the packs, without loss
    python -m benchmarks.gpu.session --unpack OUT --work WORK    # weights that came back, where the programs look
    python -m benchmarks.gpu.session --table [--page]            # the table of benchmarks/gpu/README.md

A machine that is lent for half an hour, without a network, in calls of ten minutes: each call starts the next jobs of
JOBS, stops the last one when the time is up, and leaves OUT as it should travel back. A job is a program of its own
that goes on from its checkpoints in WORK, which has to outlast the calls. A job that failed is not tried again unless
`--only` names it; one whose packs are not there is left out.

OUT holds `results.tar.gz` (the result files of all programs as `gpu_<program>.json`, one row a result, the reports, and
each job's output) and `weights.pt.00` and so on: the weights that JOBS name, matrices in half precision, in pieces of
15 MiB. `gpu_session.json` has one row for each start of a job: what it took, how it ended, and on what.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.rows import append_row, provenance, write_between
from benchmarks.tiny_packs import write_tiny_packs

PAGE = Path("benchmarks/gpu/README.md")
BEGIN, END = "<!-- jobs, made by benchmarks/gpu/session.py -->", "<!-- end of the jobs -->"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
GRACE_S = 20.0  # in which a job may stop by itself, and then from asking it to stop to killing it
CLOSING_S = 40.0  # the latter, and what goes into OUT
SHORTEST_S = 30.0  # in which a job is started at all
CIFAR10_PACKS = ("cifar10_train_jpeg.npz", "cifar10_test_jpeg.npz", "cifarlike_pool32.npz")
PIECE_BYTES = 15 * 2**20
MOST_BYTES = 45 * 2**20  # of weights: OUT as a whole may have 64 MiB


@dataclass(frozen=True)
class Job:
    """One program.

    Attributes:
        command: its words after `python -m`; {data}, {work}, {results} and {device} are filled in, and {minutes} with
            what is left of the session for a program that stops by itself.
        tiny: what is added for a few updates (where an option is given twice the later one counts); None where another
            job shows that the program runs.
        packs: files that it reads, beside CIFAR-10's.
        minutes: expected on an H100, and how that was come to.
        proves: what is known when it has finished.
        weights: files below WORK that are worth taking back.
    """

    name: str
    command: str
    tiny: str | None
    minutes: float
    arithmetic: str
    proves: str
    packs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()


PAIR, FEWER = "cifar10-r34-r18-5000", "cifar10-r34-r18-500 cifar10-r34-r18-100"
OTHER_PAIRS = "cifar10-wrn40-wrn16-500 cifar10-r34-mobilenet_v2-500"
PHOTOGRAPHS = "clothing-128px-r34-r18-200-full"
ORIGINAL, REPAIRED = "'student on original data'", "'repaired HiDFD'"
FROM_BLOCKS = '"student on original data, from teacher\'s blocks"'
QUALITY = (
    "benchmarks.quality --data {data} --device {device} --out {results}/gpu_quality.json --work {work}/quality "
    "--minutes {minutes} --only "
)
SPEED = "benchmarks.speed measure --device {device} --out {results}/gpu_speed.json "
TEACHER = "benchmarks.train_teacher --data {data} --device {device} --val --out {work}/"
RUN = "compressor run --target t4 --device {device} --teacher {work}/%s/t.pt --samples {work}/%s/few --out {work}/%s "
TINY_RUN = (
    "--method hidfd --option generator_steps=4 --option generator_batch_size=8 --option generator_width=8 "
    "--option discriminator_width=8 --option latent_dim=4 --option student_steps=4 --option student_batch_size=8 "
    "--latency-warmup-s 0.01 --latency-window-s 0.01 --latency-max-s 0.1 --calibration-images 8"
)

# Minutes are estimates: three forward passes' worth of arithmetic for an update, at 100 TFLOP/s, an eighth of what the
# card multiplies in bf16. GFLOP of a forward pass at 32 px, by torch's FlopCounterMode: ResNet-34 2.3, ResNet-18 1.1,
# WRN-40-2 0.66, WRN-16-2 0.20, MobileNetV2 0.18, ResNet-20 0.08, the GAN's networks of 256 channels 3.2 and 2.1.
JOBS: tuple[Job, ...] = (
    Job(
        "doctor",
        "compressor doctor --json",
        "",
        0.5,
        "imports, and three child processes",
        "ONNX Runtime's CUDA provider, TensorRT and the GPU are seen",
    ),
    Job(
        "tests",
        "pytest -q -p no:cacheprovider -m gpu",
        "-m 'not gpu' -k vanilla tests/compressor/methods/test_devices.py",  # what is marked runs on a CPU as well
        2.0,
        "32 tests of seconds, and the imports",
        "every method trains, stops and goes on in bf16 and channels_last on CUDA; so do doctor and the ONNX export",
    ),
    Job(
        "speed",
        SPEED,
        "--tiny --sizes cuda --rounds 1 --steps 1 --workers 0",
        4.0,
        "34 steps of each of three loops for two sizes and two phases, of at most 0.3 s each, and their networks",
        "at least 5 times the plain loop; the share of the matrix-multiply peak; 20,000 generator steps and 80,000 of "
        "the student, by measured steps, in at most 20 minutes",
    ),
    Job(
        "compile",
        SPEED + "--compile inductor --cudnn-benchmark",
        None,
        8.0,
        "as above, and a minute of compilation for each of four loops",
        "whether torch.compile and cuDNN's search pay, which the product does not use; rows beside those of `speed`",
    ),
    Job(
        "teacher",
        TEACHER + "cifar10 --few 200",
        "--steps 4 --few 20",
        1.0,
        "6,000 steps of 128 images are 0.2 PFLOP; 10 ms a step, because small networks wait for launches",
        "a teacher on CUDA, and the files of the next job",
    ),
    Job(
        "run",
        RUN % ("cifar10", "cifar10", "runs/gpu") + "--eval {work}/cifar10/val --effort quick",
        f"{TINY_RUN} --student width:0.5",
        6.0,
        "5,000 generator steps of about 25 ms, 8,000 student steps of about 12 ms, and 2 minutes for everything else",
        "`compress run` whole on CUDA: time, peak memory, agreement",
        weights=("runs/gpu/distill/student.safetensors",),
    ),
    Job(
        "quality",
        QUALITY + f"{PAIR} --configurations teacher ours",
        f"--tiny --only {PAIR} {OTHER_PAIRS} {PHOTOGRAPHS} --configurations teacher {ORIGINAL} {REPAIRED} ours",
        45.0,
        "updates x images x GFLOP: teacher 40,000 x 128 x 2.3 x 3 = 36 PFLOP, 6 min; generator 20,000 x 100 x 38 = "
        "76 PFLOP, 13 min; student 80,000 x 256 x (1.1 x 3 + 2.3 + 3.2 / 2) = 148 PFLOP, 25 min",
        "the paper's size, ResNet-34 to ResNet-18 with 5,000 collected images: our recipe beside its teacher",
        weights=("quality/teacher-cifar10-32-cifar_resnet34-1.0-40000/teacher.pt",),
    ),
    Job(
        "repaired",
        QUALITY + f"{PAIR} --configurations {REPAIRED}",
        None,
        38.0,
        "as above, without the teacher",
        "whether our recipe is above the repaired paper at its own size",
    ),
    Job(
        "anchors",
        QUALITY + f"{PAIR} --configurations {ORIGINAL} {FROM_BLOCKS} vanilla",
        None,
        42.0,
        "80,000 x 256 x 1.1 x 3 = 68 PFLOP, 11 min, twice; with the teacher's forward pass 115 PFLOP, 19 min",
        "what the same student reaches with the original data, and on the few images alone",
    ),
    Job(
        "fewer",
        QUALITY + f"{FEWER} --configurations teacher ours {REPAIRED}",
        None,
        152.0,
        "four rows of 38 min",
        "within 1 point of the original data with 500 images, within 3 with 100",
    ),
    Job(
        "pairs",
        QUALITY + f"{OTHER_PAIRS} --configurations teacher ours {REPAIRED}",
        None,
        90.0,
        "generator 13 min each; student steps of 0.7 to 1.7 TFLOP, up to 10 min each; the WRN-40-2 teacher 2 min",
        "the same for WRN-40-2 to WRN-16-2 and for ResNet-34 to MobileNetV2",
    ),
    Job(
        "photographs",
        QUALITY + f"{PHOTOGRAPHS} --configurations teacher {ORIGINAL} ours {REPAIRED}",
        None,
        120.0,
        "torchvision's ResNets at 128 px cost about as much as theirs at 32 px; the generator's maps are larger",
        "photographs at 128 px with 200 images",
        packs=("clothing_small128.npz",),
    ),
    Job(
        "methods",
        "benchmarks.methods --data {data} --device {device} --only cifar10 --pools related "
        "--out {results}/gpu_methods.json --work {work}/methods",
        "--tiny --methods dfad fast pool",
        15.0,
        "12 rows of 500 updates and their preparation, about a minute each",
        "dfad, ddad, dfq, dafl, fast, pool, kd3 and netgraft on CUDA at CIFAR-10's full size",
    ),
    Job(
        "rate",
        RUN % ("cifar10", "cifar10", "runs/rate")
        + "--eval {work}/cifar10/val --effort standard --method hidfd --option student_lr=0.05",
        None,
        15.0,
        "10,000 generator steps of about 50 ms, 25,000 student steps of about 15 ms",
        "whether the rate of 0.5, chosen at quick effort, still holds with longer schedules; beside it the same "
        "without the option",
    ),
    Job(
        "segmentation",
        "benchmarks.camvid --data {data} --device {device} --full --out {results}/gpu_camvid.json --work {work}/camvid",
        "--try --only teacher dfad --work {work}/camvid",
        600.0,
        "75,000 updates of 64 images for each of 5 students, about 100 ms each: 125 min a student",
        "segmentation at DFAD's size: DeepLabV3-ResNet-50 to DeepLabV3-MobileNetV3 on crops of 128",
        packs=("camvid_180x240.npz",),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the image packs (*.npz)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compress-gpu",
                        help="checkpoints and results; keep it until everything is done")  # fmt: skip
    parser.add_argument("--out", type=Path, help="what should travel back; default: WORK/out")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop by then, to be continued")
    parser.add_argument("--only", nargs="+", choices=[job.name for job in JOBS], metavar="JOB")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a few updates of everything, with random pictures")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="write smaller copies of the packs there")
    parser.add_argument("--unpack", type=Path, metavar="OUT", help="put the weights that came back into WORK")
    parser.add_argument("--table", action="store_true", help=f"print the table of {PAGE}")
    parser.add_argument("--page", action="store_true", help=f"with --table: write it into {PAGE}")
    options = parser.parse_args()
    if options.table:
        print(table())
        if options.page:
            write_between(PAGE, BEGIN, END, table())
        return
    if options.unpack:
        unpack_weights(options.unpack, options.work)
        return
    if options.tiny and options.data is None:
        options.data = write_tiny_packs(options.work / "packs")
    if options.data is None:
        parser.error("--data is needed to run")
    if options.pack:
        pack(options.data, options.pack)
        return
    options.out = options.out or options.work / "out"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Session(options).run(options.only)


class Session:
    """One call: jobs until the time is up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.monotonic() + 60.0 * options.minutes - CLOSING_S
        self.results = options.work / "results"
        self.logs = options.work / "logs"
        self.rows = self.results / "gpu_session.json"
        for folder in (self.results, self.logs, options.out):
            folder.mkdir(parents=True, exist_ok=True)

    def run(self, only: Sequence[str] | None) -> None:
        """Start the jobs that have not ended yet, one after the other."""
        rows = json.loads(self.rows.read_text()) if self.rows.exists() else []
        ended = {row["job"] for row in rows if row["state"] != STOPPED}
        for job in JOBS:
            if job.name not in (only or [job.name]) or (job.name in ended and not only):
                continue
            missing = [pack for pack in job.packs if not (self.options.data / pack).exists()]
            if missing:
                print(f"{job.name}: left out, {', '.join(missing)} is not there", flush=True)
            elif self.options.tiny and job.tiny is None:
                continue
            elif self.left() < SHORTEST_S or not self.start(job):
                break
        hand_over(self.results, self.logs, self.options.work, self.options.out)

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def start(self, job: Job) -> bool:
        """Run one job; False if the time was up before it had finished."""
        words, log = self.words(job), self.logs / f"{job.name}.log"
        started = time.monotonic()
        with log.open("ab") as output:
            process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                in_time = self.wait(process)
            finally:  # also where this program is stopped itself
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        # A program that was given its minutes ends by itself, shortly before.
        stopped = not in_time or (process.returncode != 0 and self.left() < SHORTEST_S)
        state = STOPPED if stopped else FAILED if process.returncode else FINISHED
        seconds = round(time.monotonic() - started, 1)
        row = {"job": job.name, "state": state, "seconds": seconds, "exit_code": process.returncode}
        append_row(self.rows, {**row, "tiny": self.options.tiny, **provenance()})
        print(f"{job.name}: {state} after {seconds:.0f} s", flush=True)
        if state == FAILED:
            print("".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:]), flush=True)
        return not stopped

    def words(self, job: Job) -> list[str]:
        """The command line."""
        known = {
            "data": self.options.data,
            "work": self.options.work,
            "results": self.results,
            "device": self.options.device,
            "minutes": f"{max(0.0, self.left() - GRACE_S) / 60.0:.2f}",
        }
        text = f"{job.command} {job.tiny if self.options.tiny else ''}"
        return [sys.executable, "-m", *(word.format(**known) for word in shlex.split(text))]

    def wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Until it ends, which is True, or the time is up: then it and its children are asked, and later made to."""
        try:
            process.wait(None if self.left() == float("inf") else max(0.0, self.left()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return False
        return True


# --- what travels -----------------------------------------------------------------------------------------------------


def pack(data: Path, folder: Path) -> None:
    """Copies of CIFAR-10's packs that are deflated: thousands of small JPEG files share most of their headers."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CIFAR10_PACKS:
        with np.load(data / name) as arrays:
            np.savez_compressed(folder / name, **{key: arrays[key] for key in arrays.files})
        print(f"{name}: {(folder / name).stat().st_size:,} bytes")


def hand_over(results: Path, logs: Path, work: Path, out: Path) -> None:
    """Fill OUT anew: the results as one archive, and the weights in pieces."""
    for old in out.glob("*"):
        old.unlink()
    with tarfile.open(out / "results.tar.gz", "w:gz") as archive:
        for folder in (results, logs):
            archive.add(folder, folder.name)
        for report in sorted(work.glob("runs/*/report.*")):
            archive.add(report, report.relative_to(work))
    content = _weights(work)
    for index, start in enumerate(range(0, len(content), PIECE_BYTES)):
        (out / f"weights.pt.{index:02d}").write_bytes(content[start : start + PIECE_BYTES])


def _weights(work: Path) -> bytes:
    """A file of the weights that JOBS name, as far as there is room, by their path below `work`; empty for none.

    Matrices become fp16. Vectors stay fp32: they weigh little, and a variance of batch norm may be too small for fp16.
    """
    taken: dict[str, dict[str, Tensor]] = {}
    room = MOST_BYTES
    for path in sorted({path for job in JOBS for pattern in job.weights for path in work.glob(pattern)}):
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        halves = {name: value.half() if value.ndim > 1 else value for name, value in tensors.items()}
        num_bytes = sum(value.nbytes for value in halves.values())
        if num_bytes <= room:
            taken[str(path.relative_to(work))] = halves
            room -= num_bytes
    if not taken:
        return b""
    buffer = io.BytesIO()
    torch.save(taken, buffer)
    return buffer.getvalue()


def unpack_weights(out: Path, work: Path) -> None:
    """Write weights that came back where they were, in fp32."""
    content = b"".join(piece.read_bytes() for piece in sorted(out.glob("weights.pt.*")))
    for name, halves in torch.load(io.BytesIO(content), weights_only=True).items():
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in halves.items()}
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
        print(path)


# --- the table --------------------------------------------------------------------------------------------------------


def table() -> str:
    """What each job is for, what it runs and how long, in Markdown; minutes are estimates."""
    lines = [
        "| job | what it would prove | command, after `python -m` | minutes | because |",
        "| --- | --- | --- | ---: | --- |",
    ]
    names = {"data": "PACKS", "work": "WORK", "results": "WORK/results", "device": "cuda", "minutes": "LEFT"}
    for job in JOBS:
        command = " ".join(job.command.format(**names).split())
        lines.append(f"| {job.name} | {job.proves} | `{command}` | {job.minutes:g} | {job.arithmetic} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

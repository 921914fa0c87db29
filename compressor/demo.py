"""The embedded default: a real small teacher, a few images and an evaluation set, made from nothing but scikit-learn.

Its 1,797 handwritten digits are real scans (8x8 pixels, 16 grey levels; Alpaydin and Kaynak 1998), bundled with the
package, so the demo needs no file and no network. What it leaves is what a user would have:

    demo/t.pt           the teacher: weights and card
    demo/few/<digit>/   5 images of each digit; all that the distillation sees
    demo/val/<digit>/   597 images that nobody trains on, for `--eval`
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.distill.supervised import train_classifier
from compressor.distill.training import Context, fitting_threads
from compressor.errors import EnvironmentFault
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import save_checkpoint
from compressor.inputs.teacher import Normalise
from compressor.interruption import interruptible
from compressor.progress import Reporter
from compressor.stages import create_run_folder, exclusive
from compressor.students.architectures import build_network

ARCHITECTURE = "cifar_resnet14"
NUM_TRAIN = 1_200
FEW_PER_CLASS = 5
TEACHER_STEPS = 800
HIDFD_STEPS = {"generator_steps": 250, "student_steps": 450}  # `quick` has four times as many, and gains little
GATES = ("agreement:min=95%,min_samples=500", "accuracy:max_drop=2points")
DIGITS = tuple(str(digit) for digit in range(10))
CARD = TeacherCard(
    architecture=ARCHITECTURE,
    num_classes=10,
    class_names=DIGITS,
    input_shape=(1, 8, 8),
    channel_order="L",
    mean=(0.305,),
    std=(0.376,),
)


def demo_settings(folder: Path, method: str = "hidfd") -> dict[str, object]:
    """The settings of the demo's run, by dotted name; HiDFD's steps are cut to three minutes of two slow cores.

    Other methods are for comparison and may do badly, so their reports are not gated.
    """
    of_hidfd = {"distill.options": HIDFD_STEPS, "gates.limits": GATES}
    return {
        "distill.method": method,
        **(of_hidfd if method == "hidfd" else {}),
        "teacher.file": folder / "t.pt",
        "samples.folder": folder / "few",
        "report.eval": folder / "val",
        "target": "jetson",
        "distill.effort": "quick",
        "out": folder / "run",
    }


def prepare_demo(folder: Path, *, seed: int, reporter: Reporter) -> None:
    """Write the demo's inputs below `folder`, unless an earlier demo did, with whatever seed that had.

    Raises:
        NotARunFolder: the folder holds other things.
        EnvironmentFault: scikit-learn is not installed.
        Interrupted: a signal came; the same command goes on.
    """
    teacher, few, val = folder / "t.pt", folder / "few", folder / "val"
    create_run_folder(folder)  # so that `few` and `val` below are ours to write, and `compress clean` may delete them
    with interruptible() as stop, exclusive(folder):
        if teacher.exists():
            reporter.note(f"the teacher and the images that are in {folder} are used again")
            return
        images, labels = digits(seed)
        few_rows = first_of_each_class(labels[:NUM_TRAIN], FEW_PER_CLASS)
        for part, rows in ((few, few_rows), (val, torch.arange(NUM_TRAIN, len(images)))):
            shutil.rmtree(part, ignore_errors=True)  # of a demo that was stopped, perhaps with another seed
            _write_images(images[rows], labels[rows], part)
        reporter.note(f"training a teacher ({ARCHITECTURE}) on {NUM_TRAIN:,} of scikit-learn's handwritten digits")
        # The seed also says which images are held out, so no other seed's checkpoint may be resumed.
        context = Context(folder / f".teacher-{seed}", seed=seed, observer=reporter, should_stop=stop.asked)
        context.folder.mkdir(exist_ok=True)
        with stop.between_steps(), reporter.phases():
            network = train_teacher(images[:NUM_TRAIN], labels[:NUM_TRAIN], context)
        save_checkpoint(teacher, network.state_dict(), CARD)
        shutil.rmtree(context.folder)


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """All digits in an order that depends on the seed: images (1797, 1, 8, 8) uint8 and labels (1797,).

    Raises:
        EnvironmentFault: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise EnvironmentFault(
            "The demo's images come with scikit-learn, which is not installed.",
            "It is in the extra `demo`.",
            "Run: pip install 'compress-edge[demo]'.",
        ) from error
    bunch = load_digits()
    images = torch.from_numpy(bunch.images * (255.0 / 16.0)).round().to(torch.uint8)[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images[order], torch.from_numpy(bunch.target)[order]


def first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """Rows of the first `count` images of every class."""
    return torch.cat([(labels == label).nonzero()[:count, 0] for label in torch.unique(labels)])


def train_teacher(images: Tensor, labels: Tensor, context: Context) -> nn.Module:
    """A ResNet-14 that classifies normalised digits; about ten seconds on one core. The context seeds its weights."""
    network = build_network(ARCHITECTURE, len(DIGITS), in_channels=1)
    whole = nn.Sequential(Normalise(CARD), network)
    with fitting_threads(images.shape[-1]):
        train_classifier(whole, images, labels, context, num_steps=TEACHER_STEPS, batch_size=64)
    return network


def _write_images(images: Tensor, labels: Tensor, folder: Path) -> None:
    from PIL import Image

    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        target = folder / DIGITS[label]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(target / f"{row:04d}.png")

"""How often answers alone tell the normalisation that a teacher without batch norm was trained with.

    python -m benchmarks.normalisation

Small networks without batch norm learn sklearn's digits at 16 px under each of the grey normalisations. Held-out
images, with and without their labels, then choose among all candidates as a run does
(`compressor/inputs/normalisation.py`). Beside it: what the highest mean confidence would have chosen.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rows import provenance
from compressor.demo import CARD, digits
from compressor.inputs.normalisation import GREY, Constants, choose_normalisation
from compressor.inputs.teacher import Normalise

RESULTS = Path(__file__).parent / "results" / "normalisation.json"
SIDE, NUM_TRAIN, EPOCHS, BATCH = 16, 1_200, 8, 50
SIZES = (20, 64)
DRAWS = 3


class Whole(nn.Module):
    """What `choose_normalisation` asks of a teacher: images (B, 1, 16, 16) in [0, 1] to logits."""

    task = "classification"

    def __init__(self, network: nn.Module, constants: Constants) -> None:
        super().__init__()
        mean, std, value_range = constants
        self.card = CARD.model_copy(update={"mean": mean, "std": std, "value_range": value_range})
        self.normalise = Normalise(self.card)
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return Answer(self.network(self.normalise(images)))


class Answer:
    """Logits (B, 10)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def trained(images: Tensor, labels: Tensor, constants: Constants, seed: int) -> tuple[nn.Module, float]:
    """A network without batch norm, and its accuracy on what follows the training images."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )
    whole = Whole(network, constants)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(NUM_TRAIN).split(BATCH):
            optimiser.zero_grad()
            F.cross_entropy(whole(images[rows].float() / 255).logits, labels[rows]).backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        right = whole(images[NUM_TRAIN:].float() / 255).logits.argmax(dim=1) == labels[NUM_TRAIN:]
    return network, float(right.float().mean())


def measure(seeds: int) -> list[dict[str, Any]]:
    """A row for each teacher, set of images and knowledge of labels."""
    small, labels = digits(0)
    images = F.interpolate(small.float(), size=SIDE, mode="bilinear").round().to(torch.uint8)
    rows = []
    for true, constants in GREY.items():
        for seed in range(seeds):
            network, accuracy = trained(images, labels, constants, seed)
            for size in SIZES:
                for draw in range(DRAWS):
                    held_out = NUM_TRAIN + torch.randperm(
                        len(images) - NUM_TRAIN, generator=torch.Generator().manual_seed(draw)
                    )
                    few = held_out[:size]
                    for known in (True, False):
                        choice = choose_normalisation(
                            lambda mean, std, value_range, network=network: Whole(network, (mean, std, value_range)),  # type: ignore[misc]
                            images[few],
                            labels[few] if known else torch.full((size,), -1),
                            1,
                        )
                        surest = max(choice.evidence, key=lambda candidate: candidate.confidence or 0.0)
                        rows.append(
                            {
                                "true": true,
                                "seed": seed,
                                "accuracy": round(accuracy, 4),
                                "images": size,
                                "draw": draw,
                                "labels": known,
                                "chosen": choice.name,
                                "most_confident": surest.name,
                            }
                        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of how many were right, and what was taken for what otherwise."""
    by_labels = {True: "labels", False: "copies"}
    found: dict[str, Any] = {}
    for known, name in by_labels.items():
        own = [row for row in rows if row["labels"] == known]
        wrong = Counter(f"{row['true']} taken for {row['chosen']}" for row in own if row["chosen"] != row["true"])
        found[name] = {"right": len(own) - wrong.total(), "of": len(own), "wrong": dict(wrong)}
    confident = [row for row in rows if row["labels"]]
    found["confidence"] = {
        "right": sum(row["most_confident"] == row["true"] for row in confident),
        "of": len(confident),
        "chose": dict(Counter(row["most_confident"] for row in confident)),
    }
    found["accuracy"] = [min(row["accuracy"] for row in rows), max(row["accuracy"] for row in rows)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="of the teachers, for each normalisation")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = measure(arguments.seeds)
    whole = {**summary(rows), **provenance(), "rows": rows}
    arguments.results.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(summary(rows)))


if __name__ == "__main__":
    main()

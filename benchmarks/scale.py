"""What training and scoring cost at sizes that nobody here can run: the tables of docs/scale.md, from what was measured and published.

    python benchmarks/scale.py                    # writes them into docs/scale.md, between their marks

On paper: the operations of matrix products are counted, a device does them at its peak times a share that was reached, and gradients are
added up in a ring. Each figure that goes in stands below, with where it is from.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Model:
    """An encoder: layers and width say how much is multiplied, all parameters how much is added up over workers."""

    name: str
    layers: int
    width: int
    parameters: int

    def operations(self, length: int) -> float:
        """Forward, of one token in a text of so many: 12 width^2 weights a layer, multiplied and added; scores, and what they weigh."""
        return 2 * self.layers * (12 * self.width**2 + 2 * length * self.width)


MINILM = Model("MiniLM (6 layers of 384)", 6, 384, 22_713_986)
BASE = Model("BERT base (12 of 768)", 12, 768, 109_482_240)
LARGE = Model("BERT large (24 of 1,024)", 24, 1024, 335_141_888)
MODELS = (MINILM, BASE, LARGE)
TRAINED = 3  # passes' worth of a forward one: backward, of inputs and of weights

# A TPU v3 core: half of a chip's 123 tera operations a second; a chip's share of a pod's 340 TB/s for sums (Google Cloud, "TPU v3").
CORE, LINKS = 123e12 / 2, 340e12 / 1024
MESSAGE = 5e-6  # seconds of one message between neighbours: a guess
# What of its peak BERT large's pretraining reached on 1,024 chips: 8,599 steps in 76 minutes, 7,038 of them of 65,536 texts of 128 tokens
# and 1,561 of 32,768 texts of 512 (You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes").
PRETRAINED = ((7_038 * 65_536, 128), (1_561 * 32_768, 512))
DONE = sum(texts * length * TRAINED * LARGE.operations(length) for texts, length in PRETRAINED)
REACHED = DONE / (76 * 60) / (2_048 * CORE)

# Measured here, on two cores of a Xeon with AMX. The first: python benchmarks/workers.py build/data/sentiment_mr --workers 1 2
SUMS = {
    1: 4.454e-3,
    10_000: 4.885e-3,
    1_000_000: 22.469e-3,
    22_713_986: 739.972e-3,
}  # seconds, by float32 numbers, two workers
SCORED = 1 / 7.3e-3  # texts of 27 words a second and core, MiniLM's export (python benchmarks/batch_scoring.py)
READ = 16_279  # prepared rows a second that one process reads (python benchmarks/streaming.py)


def ring(numbers: int, workers: int, bandwidth: float, message: float, size: int = 4) -> float:
    """Seconds of a sum over a ring: each worker sends 2 (n - 1) / n of the numbers, in 2 (n - 1) messages (Patarasu and Yuan 2009)."""
    return 2 * (workers - 1) * (numbers * size / workers / bandwidth + message)


def step(model: Model, length: int, cores: int, rows: int) -> tuple[float, float]:
    """Seconds of a training step of so many rows: computing, and adding up between the chips."""
    computing = rows * length * TRAINED * model.operations(length) / (cores * CORE * REACHED)
    return computing, ring(model.parameters, max(cores // 2, 1), LINKS, MESSAGE)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; all columns but the first are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lengths() -> str:
    sizes = (32, 128, 512, 2048)
    rows = []
    for model in MODELS:
        shares = [4 * model.layers * length * model.width / model.operations(length) for length in sizes]
        giga = [length * model.operations(length) / 1e9 for length in sizes]
        rows.append([model.name, *(f"{each:,.3g} ({share:.0%})" for each, share in zip(giga, shares, strict=True))])
    return table(
        ["giga operations of a text, forward (share of attention)", *(f"{size:,} tokens" for size in sizes)], rows
    )


def measured() -> str:
    bandwidth = 22_713_986 * 4 / (SUMS[22_713_986] - SUMS[1])
    rows = [
        [f"{count:,}", f"{seconds * 1e3:,.1f}", f"{ring(count, 2, bandwidth, SUMS[1] / 2) * 1e3:,.1f}"]
        for count, seconds in SUMS.items()
    ]
    return table(["float32 numbers added up by two workers", "ms, measured", "ms, by the formula"], rows)


def training() -> str:
    rows = []
    for model in MODELS:
        for cores in (8, 128, 1_024):
            computing, adding = step(model, 128, cores, 32 * cores)
            seconds = computing + adding
            rows.append([
                f"{model.name}, {cores:,} cores",
                f"{32 * cores:,}",
                f"{computing * 1e3:,.2f}",
                f"{adding * 1e3:,.2f}",
                f"{computing / seconds:.0%}",
                f"{32 * cores / seconds:,.0f}",
                f"{32 * cores / seconds / READ:,.1f}",
            ])  # fmt: skip
    head = [
        "training, 128 tokens, 32 rows a core",
        "rows a step",
        "computing, ms",
        "adding up, ms",
        "of the time computing",
        "rows/s",
    ]
    return table([*head, "processes that read"], rows)


def scoring() -> str:
    rows, cores = [], 1e9 / DAY / SCORED
    for model in MODELS:
        share = model.operations(40) / MINILM.operations(40)
        tpu = CORE * REACHED / (40 * model.operations(40))
        rows.append(
            [model.name, f"{SCORED / share:,.1f}", f"{cores * share:,.0f}", f"{tpu:,.0f}", f"{1e9 / DAY / tpu:,.2f}"]
        )
    return table(
        [
            "a billion texts of 27 words (40 tokens) a day",
            "texts/s of a core of ours",
            "such cores",
            "texts/s of a TPU v3 core",
            "such cores",
        ],
        rows,
    )


def page(text: str) -> str:
    """The page with its tables made anew."""
    for name, made in (("lengths", lengths), ("measured", measured), ("training", training), ("scoring", scoring)):
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, made=made: f"{found[1]}{made()}\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text.replace("REACHED", f"{REACHED:.0%}")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")

"""What training and scoring cost at sizes that nobody here can run: the tables of docs/scale.md, from what was measured and published.

    python benchmarks/scale.py                    # writes them into docs/scale.md

On paper: products of matrices are counted, a device does them at its peak times a share that was reached, and gradients are added up in a
ring. Each figure that goes in stands below with where it is from.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Model:
    """An encoder: its layers and width say how much is multiplied, its parameters how much is added up over workers."""

    name: str
    layers: int
    width: int
    parameters: int  # with the embeddings

    def operations(self, length: int) -> float:
        """Of one token, forward, in a text of so many: 12 width^2 weights a layer, each multiplied and added; scores and their use."""
        return 2 * self.layers * (12 * self.width**2 + 2 * length * self.width)


MINILM = Model("MiniLM, 6 layers of 384", 6, 384, 22_713_986)
BASE = Model("BERT base, 12 of 768", 12, 768, 109_482_240)
LARGE = Model("BERT large, 24 of 1,024", 24, 1024, 335_141_888)
TRAINED = 3  # forward, and twice as much backward

# Of a TPU v3 core: half of a chip's 123 tera operations a second in bfloat16 (Google Cloud, "TPU v3").
CORE = 61.5e12
# The share of it that BERT large's pretraining reached on 1,024 chips: 7,038 steps of 65,536 texts of 128 tokens and 1,561 of 32,768 of
# 512 in 76.2 minutes (You et al. 2020, "Large Batch Optimization for Deep Learning", table 1).
TEXTS = ((7_038 * 65_536, 128), (1_561 * 32_768, 512))
REACHED = sum(count * length * TRAINED * LARGE.operations(length) for count, length in TEXTS) / (76.2 * 60) / (2_048 * CORE)
# Of a TPU v3 chip's links, 656 Gbit a second (the same page); and what a message takes, a guess.
LINK, MESSAGE = 656e9 / 8, 5e-6
# Two processes of one core each, over loopback: python benchmarks/workers.py build/data/sentiment_mr
LOOPBACK = {"numbers": 22_713_986, "sum_ms": None, "message_ms": None, "step_ms": {1: None, 2: None, 4: None}}


def ring(numbers: int, workers: int, bandwidth: float, message: float, size: int = 4) -> float:
    """Seconds of adding up so many numbers over a ring (Patarasu and Yuan 2009): each sends 2 (n - 1) / n of them, in 2 (n - 1) messages."""
    return 2 * (workers - 1) * (numbers * size / workers / bandwidth + message)


def training(model: Model, length: int, cores: int, rows: int) -> tuple[float, float]:
    """Seconds of a step of so many rows, computing and adding up."""
    computing = rows * length * TRAINED * model.operations(length) / (cores * CORE * REACHED)
    return computing, ring(model.parameters, cores, LINK, MESSAGE)

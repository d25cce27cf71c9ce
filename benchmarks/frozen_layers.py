"""What an epoch costs with frozen layers, whose states are computed once, beside the same run that computes them in each epoch.

python benchmarks/prepare_data.py ../shared/data build/data
python benchmarks/frozen_layers.py build/data/sentiment_mr
python benchmarks/frozen_layers.py build/data/sentiment_mr --recipe unfreeze=gradual --epochs 7

Prints one JSON object: of either run the seconds of each epoch (scoring left out), and of the first with what was computed before it,
the whole run's seconds, the mean training losses and the test scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import tfbert


def fine_tune(data: Path, checkpoint: str, cache: str, options: argparse.Namespace) -> dict:
    """One run, and what is told of it."""
    name, value = options.recipe.split("=", maxsplit=1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tuned = tfbert.fine_tune(
            tfbert.SequenceClassification(max_length=64),
            checkpoint,
            tfbert.read(data / "train.csv"),
            tfbert.read(held_out) if (held_out := data / "validation.csv").is_file() else None,
            test=tfbert.read(data / "test.csv"),
            directory=Path(folder) / "run",
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            frozen_cache=cache,
            export=False,
            report=False,
            **{name: value},
        )
    computing, seconds = tuned.metrics.get("frozen_cache_seconds", 0.0), [row["seconds"] for row in tuned.history]
    first = computing + seconds[0]
    return {
        "first_epoch_seconds": round(first, 2),
        "epoch_seconds": [round(each, 2) for each in seconds],
        "second_of_first": round(seconds[1] / first, 4),
        "run_seconds": round(time.monotonic() - began, 1),
        "gib": round(tuned.metrics.get("frozen_cache_bytes", 0) / 2**30, 3),
        "test": tuned.metrics["metrics"],
        "losses": [row["loss"] for row in tuned.history],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "data", type=Path, help="a folder with train.csv, test.csv and perhaps validation.csv, single-label texts"
    )
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2")
    parser.add_argument("--recipe", default="freeze=encoder", help="a setting of fine_tune (default: freeze=encoder)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the second is the first that has the states")
    row = {"benchmark": "frozen_layers", "recipe": options.recipe, "data": options.data.name}
    for side, cache in (("once", "auto"), ("in each epoch", "off")):
        print(f"the frozen layers are computed {side}", file=sys.stderr)
        row[side.replace(" ", "_")] = fine_tune(options.data, options.checkpoint, cache, options)
    print(json.dumps(row))


if __name__ == "__main__":
    main()

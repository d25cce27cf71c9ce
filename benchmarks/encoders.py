"""Test scores of the same fine-tuning with either encoder, over several seeds: a faster encoder must not learn otherwise.

python benchmarks/prepare_data.py ../shared/data build/data
python benchmarks/encoders.py build/data
python benchmarks/encoders.py build/data banking77 --epochs 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from results import RUNS, command

ENCODERS = ("lean", "transformers")


def fine_tune(name: str, data: Path, encoder: str, seed: int, epochs: int | None = None) -> dict:
    """Runs one row of the results table without what does not bear on its scores; returns its metrics.json."""
    with tempfile.TemporaryDirectory() as folder:
        run = command(name, data)
        run[run.index("--output") + 1] = str(Path(folder) / "run")
        if epochs is not None:
            run[run.index("--epochs") + 1] = str(epochs)
        run += ["--encoder", encoder, "--seed", str(seed), "--no-export", "--no-report"]
        print("$ " + " ".join(run), file=sys.stderr, flush=True)
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "run" / "metrics.json").read_text("utf-8"))


def compare(name: str, found: dict[str, list[dict]]) -> dict:
    """Both encoders' scores, medians and spreads, and whether the medians are nearer to each other than one encoder's seeds are."""
    row = {"benchmark": "encoders", "data": name}
    for encoder, runs in found.items():
        scores = [run["test"]["accuracy"] for run in runs]
        row[encoder] = {
            "accuracy": [round(score, 4) for score in scores],
            "median": round(statistics.median(scores), 4),
            "spread": round(max(scores) - min(scores), 4),
            "train_seconds": round(statistics.median(run["train_seconds"] for run in runs), 1),
        }
    apart = abs(row["lean"]["median"] - row["transformers"]["median"])
    return {**row, "apart": round(apart, 4), "within_spread": apart <= max(row[name]["spread"] for name in ENCODERS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder that prepare_data.py wrote")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RUNS)} (default: sentiment_mr banking77)")
    parser.add_argument("--epochs", type=int, help="instead of those of the results table")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each encoder (default 3)")
    options = parser.parse_args()
    for name in options.names or ["sentiment_mr", "banking77"]:
        found: dict[str, list[dict]] = {encoder: [] for encoder in ENCODERS}
        for seed in range(options.seeds):
            for encoder in ENCODERS:
                found[encoder].append(fine_tune(name, options.data, encoder, seed, options.epochs))
        print(json.dumps(compare(name, found)), flush=True)


if __name__ == "__main__":
    main()

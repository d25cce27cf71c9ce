"""Runs the commands behind the README's results table, one after the other, and prints the table.

python benchmarks/prepare_data.py ../shared/data build/data
python benchmarks/results.py build/data                 # all rows; names as arguments choose some
python benchmarks/results.py build/data --table-only    # the table of the runs that are there
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

# Task and options of each row beside its files; what is not said is the default of `tfbert fine-tune`. A row may go on from an earlier one.
# Before a colon in a row's name is its data set.
CLASSIFICATION = "sequence-classification"
LONG = "--epochs 1 --batch-size 16 --learning-rate 1e-4 --max-length 256"
RUNS = {
    "sentiment_mr": f"{CLASSIFICATION} --epochs 1 --learning-rate 1e-4 --max-length 64",
    "banking77": f"{CLASSIFICATION} --epochs 5 --batch-size 64 --learning-rate 5e-4 --max-length 64",
    "clinc150": f"{CLASSIFICATION} --epochs 3 --batch-size 64 --learning-rate 5e-4 --max-length 32",
    "goemotions": f"{CLASSIFICATION} --kind multi --epochs 1 --learning-rate 3e-4 --max-length 32",
    "snli_dev": f"{CLASSIFICATION} --epochs 1 --learning-rate 1e-4 --max-length 64",
    "stsb": f"{CLASSIFICATION} --kind regression --checkpoint saved_models/snli_dev/checkpoint --new-head --symmetric --dropout 0 "
    "--epochs 3 --batch-size 16 --learning-rate 1e-4 --max-length 96",
    "stsb:embedding": "sentence-embedding --epochs 2 --batch-size 16 --learning-rate 5e-5 --max-length 96",
    "movie_reviews": f"{CLASSIFICATION} {LONG}",
    "movie_reviews:head+tail": f"{CLASSIFICATION} {LONG} --long-text head+tail",
    "movie_reviews:windows": f"{CLASSIFICATION} {LONG} --long-text windows",
    "wnut17": "token-classification --epochs 3 --batch-size 16 --learning-rate 2e-4 --max-length 96",
    "xquad": "question-answering --epochs 5 --batch-size 8 --learning-rate 2e-4 --max-length 256 --stride 64",
}
SCORES = {
    "goemotions": ("f1_macro", "f1_micro", "roc_auc"),
    "stsb": ("spearman", "pearson"),
    "stsb:embedding": ("spearman", "pearson"),
    "wnut17": ("f1", "precision", "recall"),
    "xquad": ("exact_match", "f1"),
}


def command(name: str, data: Path) -> list[str]:
    folder, (task, *options) = data / name.split(":")[0], RUNS[name].split()
    suffix = next(suffix for suffix in (".csv", ".conll", ".json") if (folder / f"train{suffix}").is_file())
    files = ["--train", str(folder / f"train{suffix}"), "--test", str(folder / f"test{suffix}")]
    if (folder / f"validation{suffix}").is_file():
        files += ["--validation", str(folder / f"validation{suffix}")]
    return ["tfbert", "fine-tune", task, *files, "--output", str(place(name)), *options]


def place(name: str) -> Path:
    return Path("saved_models") / name.replace(":", "-")


def row(name: str, data: Path) -> str | None:
    file = place(name) / "metrics.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text("utf-8"))
    scores = ", ".join(f"{score} {found['test'][score]:.3f}" for score in SCORES.get(name, ("accuracy", "f1_macro")))
    return (
        f"| {name} | {found['rows']['train']:,} | {scores} | {found['train_seconds']:,.0f} | {found['tokens_per_second']:,.0f} "
        f"| {100 * found['padding_share']:.1f} % | {found['peak_memory_bytes'] / 2**30:.1f} GiB | `{RUNS[name]}` |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder that prepare_data.py wrote")
    parser.add_argument("names", nargs="*", help=f"rows to run (default: all of {', '.join(RUNS)})")
    parser.add_argument("--table-only", action="store_true", help="print the table of the runs that are there")
    options = parser.parse_args()
    names = options.names or list(RUNS)
    if not options.table_only:
        for name in names:
            print("$ " + " ".join(command(name, options.data)), file=sys.stderr, flush=True)
            subprocess.run([*command(name, options.data), "--overwrite"], check=True)
    print("| data | rows | test score | training s | tokens/s | padding | peak memory | options |")
    print("|---|---|---|---|---|---|---|---|")
    for line in filter(None, (row(name, options.data) for name in names)):
        print(line)


if __name__ == "__main__":
    main()

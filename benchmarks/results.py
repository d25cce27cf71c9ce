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

# Options of each row beside its files; what is not said is the default of `tfbert fine-tune`.
RUNS = {
    "sentiment_mr": "--epochs 1 --learning-rate 1e-4 --max-length 64",
    "banking77": "--epochs 5 --batch-size 64 --learning-rate 5e-4 --max-length 64",
    "clinc150": "--epochs 3 --batch-size 64 --learning-rate 5e-4 --max-length 32",
    "goemotions": "--kind multi --dropout 0 --epochs 1 --batch-size 64 --learning-rate 3e-4 --max-length 32",
    "stsb": "--kind regression --dropout 0 --epochs 3 --batch-size 16 --learning-rate 1e-4 --max-length 96",
    "snli_dev": "--epochs 1 --learning-rate 1e-4 --max-length 64",
    "movie_reviews": "--epochs 1 --batch-size 16 --learning-rate 1e-4 --max-length 256",
}
SCORES = {"goemotions": ("f1_macro", "f1_micro"), "stsb": ("spearman", "pearson")}


def command(name: str, data: Path) -> list[str]:
    folder = data / name
    files = ["--train", str(folder / "train.csv"), "--test", str(folder / "test.csv")]
    if (folder / "validation.csv").is_file():
        files += ["--validation", str(folder / "validation.csv")]
    return [
        "tfbert",
        "fine-tune",
        "sequence-classification",
        *files,
        "--output",
        f"saved_models/{name}",
        *RUNS[name].split(),
    ]


def row(name: str, data: Path) -> str | None:
    place = Path("saved_models") / name / "metrics.json"
    if not place.is_file():
        return None
    found = json.loads(place.read_text("utf-8"))
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

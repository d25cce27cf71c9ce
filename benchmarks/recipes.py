"""What each recipe of fine-tuning is worth: the same training with one thing changed, by several seeds: scores, seconds, and what learns.

    python benchmarks/prepare_data.py ../shared/data build/data
    python benchmarks/recipes.py build/data sentiment_mr --rows 1000                # a stratified part of the training file
    python benchmarks/recipes.py build/data --recipes full lora --seeds 5
    python benchmarks/recipes.py build/data --table-only                            # of the runs that are there

Each run is a process of its own, and a line of --output when it is complete; what has its line there is not run again. One that was
stopped goes on from its last state. All recipes of a seed have the same rows, held-out rows and order; seeds change all of these and the
new head. The table tells the test accuracy, and the median of the differences to `full` with the same seed, whatever its sign. Beside the
seconds of training it has the CPU seconds of the whole run (adaptation, start and test included), which other work on the machine hardly
changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from prepare_data import write

from tfbert.sources import read, split

SETS = {
    "sentiment_mr": {"batch_size": 32, "max_length": 64},
    "movie_reviews": {"batch_size": 16, "max_length": 128},
}
# Settings of `fine_tune`, where they differ from its defaults. The rate of `full` is that of the results table; BERT's authors took 2e-5 to
# 5e-5 for models three times as wide. What changes all weights keeps it, so that one thing differs. What learns few numbers, or most of
# them slowly, needs a higher one: LoRA's authors took ten times that of BERT (4e-4 and 5e-4, rank 8, alpha 16), BitFit's 1e-4 to 1e-3, and
# ULMFiT 1e-2 for its highest layer.
RATE = 1e-4
IN_TURN = "0: head; 1: pooler,layers[3:]; 2: encoder"  # of three epochs
RECIPES: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": RATE},
    "frozen": {"freeze": "encoder", "learning_rate": 50 * RATE},
    # all-MiniLM-L6-v2 was trained by the mean of its states: what its pooler makes of the first one means little until it learns.
    "pooler": {"freeze": "embeddings,layers[:]", "learning_rate": 10 * RATE},
    "gradual": {"unfreeze": IN_TURN, "learning_rate": 2 * RATE},  # Howard and Ruder 2018
    "discriminative": {"layer_decay": 1 / 2.6, "learning_rate": 10 * RATE},  # Howard and Ruder 2018
    "stlr": {"schedule": "slanted-triangular", "learning_rate": RATE},  # Howard and Ruder 2018
    "ulmfit": {
        "unfreeze": IN_TURN,
        "layer_decay": 1 / 2.6,
        "schedule": "slanted-triangular",
        "learning_rate": 10 * RATE,
    },
    "llrd": {"layer_decay": 0.9, "learning_rate": 2 * RATE},  # Zhang et al. 2021
    "lora": {"lora": 8, "learning_rate": 10 * RATE},  # Hu et al. 2021
    "bitfit": {"freeze": "weights", "learning_rate": 20 * RATE},  # Ben Zaken et al. 2022
    "reinitialize": {"reinitialize": 1, "learning_rate": RATE},  # Zhang et al. 2021
    "ema": {"ema": 0.99, "learning_rate": RATE},
    "fgm": {"fgm": 1.0, "learning_rate": RATE},  # Miyato et al. 2017
    "r_drop": {"r_drop": 1.0, "learning_rate": RATE},  # Liang et al. 2021
    "adapt": {
        "adapt": "train",
        "learning_rate": RATE,
    },  # Gururangan et al. 2020; its seconds are not among those of training
}
MEASURED = ("train_seconds", "cpu_seconds", "trainable_parameters", "best_epoch")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder that prepare_data.py wrote")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"data sets: {', '.join(SETS)} (default: each)")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="default: each")
    parser.add_argument("--rows", type=int, help="of the training file, each label in its share (default: all)")
    parser.add_argument("--epochs", type=int, default=3, help="of each run (default 3)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe (default 3)")
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="a folder or a hub name")
    parser.add_argument("--output", type=Path, default=Path("build/recipes.jsonl"), help="a line for each run")
    parser.add_argument("--table-only", action="store_true", help="print the table of the runs that are there")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in SETS:
            parser.error(f"there is no data set {name!r}; there are {', '.join(SETS)}")
    return options


def runs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All that decides each run. The first seed of every recipe comes before the second: a table that is stopped lacks no recipe."""
    return [
        {
            "data": name,
            "rows": options.rows,
            "recipe": recipe,
            "seed": seed,
            "checkpoint": options.checkpoint,
            "settings": {"epochs": options.epochs, **SETS[name], **RECIPES[recipe]},
        }
        for name in options.names or SETS
        for seed in range(options.seeds)
        for recipe in options.recipes
    ]


def training_file(file: Path, rows: int | None, folder: Path) -> Path:
    """The file, or one with so many of its rows, each label in its share: the same ones at each call."""
    examples = read(file)
    if rows is None or rows >= len(examples):
        return file
    chosen = split(examples, rows / len(examples))[1]
    path = folder / f"{file.parent.name}-{rows}.csv"
    write(path, ("text", "label"), [(row["text"], row["label"]) for row in chosen])
    return path


def command(run: dict[str, Any], train: Path, test: Path, place: Path) -> list[str]:
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in run["settings"].items()]
    files = ["--train", str(train), "--test", str(test), "--output", str(place), "--checkpoint", run["checkpoint"]]
    # --resume begins a run where there is none.
    fixed = ["--seed", str(run["seed"]), "--resume", "--no-export", "--no-report"]
    return [sys.executable, "-m", "tfbert", "fine-tune", "sequence-classification", *files, *settings, *fixed]


def fine_tune(run: dict[str, Any], folder: Path, place: Path) -> dict[str, Any]:
    """Runs one, or what is left of it; returns its metrics.json and, of a run that was never stopped, its CPU seconds."""
    whole, before = not any(place.parent.glob(f"*{place.name}*")), _cpu_seconds()
    if not (place / "metrics.json").is_file():  # it is there where all was stopped before the line was written
        train = training_file(folder / run["data"] / "train.csv", run["rows"], place.parent)
        words = command(run, train, folder / run["data"] / "test.csv", place)
        print("$ " + " ".join(words), file=sys.stderr, flush=True)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    used = round(_cpu_seconds() - before, 1) if whole else None
    return {**json.loads((place / "metrics.json").read_text("utf-8")), "cpu_seconds": used}


def _cpu_seconds() -> float:
    """Of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def complete(missing: list[dict[str, Any]], folder: Path, output: Path) -> None:
    """Makes each run and writes its line."""
    for number, run in enumerate(missing, 1):
        print(f"{run['data']}, {run['recipe']}, seed {run['seed']}: {number} of {len(missing)}", file=sys.stderr)
        digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
        place = output.parent / "recipes" / f"{run['data']}-{run['recipe']}-{run['seed']}-{digest}"
        place.parent.mkdir(parents=True, exist_ok=True)
        found = fine_tune(run, folder, place)
        row = {**run, "accuracy": found["test"]["accuracy"], **{name: found[name] for name in MEASURED}}
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shutil.rmtree(place)


def read_rows(output: Path, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of those runs that are wanted."""
    if not output.is_file():
        return []
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    return [row for row in rows if identity(row) in wanted]


def identity(row: dict[str, Any]) -> dict[str, Any]:
    """The run whose line this is."""
    return {name: value for name, value in row.items() if name not in ("accuracy", *MEASURED)}


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row of the table for each recipe on each data set, in the order of their first runs."""
    groups: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["recipe"]), {})[row["seed"]] = row
    found = []
    for (name, recipe), by_seed in groups.items():
        scores = {seed: row["accuracy"] for seed, row in by_seed.items()}
        full = {seed: row["accuracy"] for seed, row in groups.get((name, "full"), {}).items()}
        apart = [score - full[seed] for seed, score in scores.items() if seed in full]
        used = [row["cpu_seconds"] for row in by_seed.values() if row["cpu_seconds"] is not None]
        first = next(iter(by_seed.values()))
        found.append(
            {
                "benchmark": "recipes",
                **{key: first[key] for key in ("data", "rows", "checkpoint", "recipe", "settings")},
                "accuracy": {str(seed): round(score, 4) for seed, score in scores.items()},
                "median": round(statistics.median(scores.values()), 4),
                "min": round(min(scores.values()), 4),
                "max": round(max(scores.values()), 4),
                "to_full": round(statistics.median(apart), 4) if apart and recipe != "full" else None,
                "train_seconds": round(statistics.median(row["train_seconds"] for row in by_seed.values()), 1),
                "cpu_seconds": round(statistics.median(used), 1) if used else None,
                "trainable_parameters": first["trainable_parameters"],
            }
        )
    return found


def table(found: list[dict[str, Any]]) -> str:
    """The summaries in Markdown."""
    lines = [
        "| data | recipe | accuracy, median | least | most | to full | training s | CPU s in all | numbers that learn | seeds | settings |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        apart = "" if row["to_full"] is None else f"{row['to_full']:+.3f}"
        used = "" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:,.0f}"
        shared = {"epochs", *SETS[row["data"]]}
        settings = ", ".join(f"{name}={_short(value)}" for name, value in row["settings"].items() if name not in shared)
        lines.append(
            f"| {row['data']} | {row['recipe']} | {row['median']:.3f} | {row['min']:.3f} | {row['max']:.3f} | {apart} "
            f"| {row['train_seconds']:,.0f} | {used} | {row['trainable_parameters']:,} | {len(row['accuracy'])} | `{settings}` |"
        )
    return "\n".join(lines)


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    wanted = runs(options)
    if not options.table_only:
        there = [identity(row) for row in read_rows(options.output, wanted)]
        complete([run for run in wanted if run not in there], options.data, options.output)
    found = summaries(read_rows(options.output, wanted))
    for row in found:
        print(json.dumps(row), flush=True)
    print(table(found), file=sys.stderr)


if __name__ == "__main__":
    main()

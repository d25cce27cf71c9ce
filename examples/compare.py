"""Which checkpoint, and how much of it should learn? Fine-tunes each pair of the two on one task and compares what comes out.

    python examples/compare.py
    python examples/compare.py --checkpoints all-MiniLM-L6-v2 bert-base-uncased --ways full frozen --learning-rate 5e-5
    python examples/compare.py --data reviews.csv --epochs 3

Score, seconds of training, parameters, and latency of the export: a JSON object each on stdout, a table on stderr, and a picture where
matplotlib is. All learn from the same rows in the same order, with the same seed. It is one run each: repeat it with other seeds before
you believe a difference of a few points.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import tfbert
from tfbert import plots

HERE = Path(__file__).resolve().parent
DATA = [str(HERE / "data" / f"delivery_{part}.csv") for part in ("train", "test")]
TASK = tfbert.SequenceClassification(max_length=128)
# What learns, and at how many times the rate of `full`. Few numbers need long steps: BERT's authors fine-tune with up to 5e-5, LoRA's
# with 5e-4, BitFit's with up to 1e-3; and a head on frozen features is but a linear model.
WAYS = {
    "full": (1, {}),
    "top": (1, {"freeze": "embeddings,layers[:-2]"}),
    "lora": (10, {"lora": 8}),
    "bitfit": (20, {"freeze": "weights"}),
    "frozen": (50, {"freeze": "encoder"}),
}
COLORS = (plots.BLUE, plots.ORANGE, "#338844", "#aa3377", plots.GREY)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", nargs="+", default=DATA, metavar="FILE", help="one to learn from and one to test on, or one for both"
    )
    parser.add_argument("--checkpoints", nargs="+", default=["all-MiniLM-L6-v2"], help="folders or hub names")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="what learns (default: each)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="of `full` (default 2e-4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE.parent / "saved_models" / "compare")
    options = parser.parse_args(argv)
    if len(options.data) > 2:
        parser.error(f"--data takes one file or two, got {len(options.data)}")
    return options


def parts(files: list[str]) -> dict[str, tfbert.Examples]:
    """The rows to learn from, to choose the best epoch by, and to test on: where there is but one file, a fifth of it."""
    train, *test = map(tfbert.read, files)
    train, test = (train, test[0]) if test else tfbert.split(train, 0.2)
    train, validation = tfbert.split(train)
    return {"train": train, "validation": validation, "test": test}


def compare(checkpoint: str, way: str, data: dict[str, tfbert.Examples], options: argparse.Namespace) -> dict:
    """Fine-tunes one way, exports, and measures."""
    times, settings = WAYS[way]
    tuned = tfbert.fine_tune(
        TASK,
        checkpoint,
        **data,
        directory=options.output / f"{checkpoint.strip('/').replace('/', '-')}-{way}",
        learning_rate=times * options.learning_rate,
        **settings,
        **{name: getattr(options, name) for name in ("epochs", "batch_size", "seed")},
        report=False,
        overwrite=True,
    )
    scores = {part: tuned.metrics[part][tuned.task.monitor] for part in ("validation", "test")}
    names = ("train_seconds", "trainable_parameters", "parameters")
    measured = {name: tuned.metrics[name] for name in names}
    rate = tuned.metrics["settings"]["learning_rate"]
    row = {"checkpoint": checkpoint, "way": way, "learning_rate": rate, "score": tuned.task.monitor, **scores}
    return {**row, **measured, "latency_ms_p50": round(latency(tfbert.Predictor(tuned.directory), data["test"]), 2)}


def latency(predictor: tfbert.Predictor, rows: tfbert.Examples, warmup: int = 10, requests: int = 100) -> float:
    """Median milliseconds from a text to its answer, one at a time, after the first ones, which find nothing prepared."""
    seconds = []
    for row in itertools.islice(itertools.cycle(rows), warmup + requests):
        begun = time.perf_counter()
        predictor([row])
        seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds[warmup:])


def table(rows: list[dict]) -> str:
    names = ("checkpoint", "way", rows[0]["score"], "(validation)", "training s", "learn", "parameters", "ms a text")
    cells = [names]
    for row in rows:
        scores, sizes = (row["test"], row["validation"]), (row["trainable_parameters"], row["parameters"])
        told = (*(f"{score:.3f}" for score in scores), f"{row['train_seconds']:.1f}", *(f"{size:,}" for size in sizes))
        cells.append((row["checkpoint"][-32:], row["way"], *told, f"{row['latency_ms_p50']:.1f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(map(str.ljust, line[:2], widths)) + "  " + "  ".join(map(str.rjust, line[2:], widths[2:]))
        for line in cells
    )
    return "\n".join(lines)


def beside(heights: list[float], apart: float) -> list[float]:
    """Where labels stand, from 0 to 1, that are to be at these heights (in rising order), and so much apart at least."""
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + apart)
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], 1 - apart * (len(heights) - 1 - i))
    return heights


def picture(rows: list[dict]):
    """A figure: score over seconds, the larger the point the more learns; the names stand beside, in the order of the scores."""
    rows = sorted(rows, key=lambda row: row["test"])
    made, axes = plots.figure(8.5, max(3.6, 0.3 * len(rows)))
    colors = dict(zip(sorted({row["checkpoint"] for row in rows}), itertools.cycle(COLORS)))
    for row in rows:
        size = 30 + 270 * (row["trainable_parameters"] / max(each["parameters"] for each in rows)) ** 0.5
        axes.scatter(row["train_seconds"], row["test"], s=size, color=colors[row["checkpoint"]], alpha=0.8)
    axes.set(xlabel="seconds of training", ylabel=f"test {rows[0]['score']}", xlim=(0, None))
    axes.margins(y=0.15)
    low, high = axes.get_ylim()
    line = {"arrowstyle": "-", "color": plots.GREY, "linewidth": 0.5, "relpos": (0, 0.5)}
    places = beside([(row["test"] - low) / (high - low) for row in rows], min(0.09, 1 / len(rows)))
    for row, place in zip(rows, places, strict=True):
        text = f"{row['way']}: {row['test']:.3f}, {row['trainable_parameters']:,} learn, {row['latency_ms_p50']:.1f} ms a text"
        axes.annotate(
            text, (row["train_seconds"], row["test"]), (1.05, place), textcoords="axes fraction", va="center", fontsize=8,
            color=colors[row["checkpoint"]], arrowprops=line,
        )  # fmt: skip
    for checkpoint, color in colors.items():
        axes.scatter([], [], color=color, label=plots.shortened(checkpoint[-32:], 32))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=2, frameon=False, fontsize=8)
    return made


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    data = parts(options.data)
    rows = []
    for checkpoint, way in itertools.product(options.checkpoints, options.ways):
        rows.append(compare(checkpoint, way, data, options))
        print(json.dumps(rows[-1]), flush=True)
    print(f"\n{table(rows)}", file=sys.stderr)
    if plots.available():
        (options.output / "compare.png").write_bytes(plots.png(picture(rows)))
        print(f"\n{options.output / 'compare.png'}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except tfbert.InputError as error:
        sys.exit(f"compare.py: {error}")

"""Students of 3 and 2 layers beside their teacher of 6, with its answers and without: test score, and texts a second of the exports.

    python benchmarks/prepare_data.py ../shared/data build/data
    python benchmarks/distillation.py build/data              # saved_models/banking77 is the teacher; made first where it is not there
    python benchmarks/distillation.py build/data --rows 2     # some of the rows below, by number; runs that are there are not made again

Prints one JSON object a line: for each student its score and texts a second over the teacher's. The sides take turns, in one process;
times are the processor's, of all threads; medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from results import command, place

import tfbert
from tfbert.serving.layout import versions

NAME = "banking77"
TEACHER = place(NAME)
# What a student has beside the options of its teacher (see results.py): with its answers and without, 3 layers and 2.
FROM_TEACHER = f"--checkpoint {TEACHER}/checkpoint"
TAUGHT = f"{FROM_TEACHER} --teacher {TEACHER}"
ROWS = (
    f"{TAUGHT} --keep-layers 1::2",
    f"{FROM_TEACHER} --keep-layers 1::2",
    f"{TAUGHT} --keep-layers 2,5",
    f"{FROM_TEACHER} --keep-layers 2,5",
)


def student(number: int, data: Path) -> Path:
    """Trains one row, where it is not there yet; returns its folder."""
    folder = place(f"{NAME}-student-{number}")
    if not (folder / "metrics.json").is_file():
        run = command(NAME, data) + ROWS[number].split()
        run[run.index("--output") + 1] = str(folder)
        print("$ " + " ".join(run), file=sys.stderr, flush=True)
        subprocess.run([*run, "--no-report"], check=True, stdout=subprocess.DEVNULL)
    return folder


def seconds(folders: list[Path], texts: list[str], rounds: int) -> list[list[float]]:
    """Of each export the processor seconds of each round."""
    predictors = [tfbert.Predictor(folder) for folder in folders]
    found: list[list[float]] = [[] for _ in folders]
    for turn in range(rounds + 1):  # the first one warms up
        for predictor, own in zip(predictors, found, strict=True):
            began = time.process_time()
            predictor(texts)
            own.append(time.process_time() - began)
            if not turn:
                own.clear()
    return found


def compared(teacher: dict, own: dict, slow: list[float], fast: list[float], texts: int) -> dict:
    """A student's figures beside its teacher's; a ratio of times is that of neighbouring rounds."""
    score = own["test"]["accuracy"]
    ratios = [one / other for one, other in zip(slow, fast, strict=True)]
    return {
        "accuracy": round(score, 4),
        "teacher_accuracy": round(teacher["test"]["accuracy"], 4),
        "score_ratio": round(score / teacher["test"]["accuracy"], 4),
        "speed_ratio": round(statistics.median(ratios), 2),
        "speed_ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "texts_per_cpu_second": round(texts / statistics.median(fast), 1),
        "teacher_texts_per_cpu_second": round(texts / statistics.median(slow), 1),
        "parameters": own["parameters"],
        "teacher_parameters": teacher["parameters"],
        "train_seconds": own["train_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder that prepare_data.py wrote")
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(ROWS)), help="which students (default: all)")
    parser.add_argument("--texts", type=int, default=512, help="texts of a round (default 512)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default 7)")
    options = parser.parse_args()
    if not (TEACHER / "metrics.json").is_file():
        subprocess.run(command(NAME, options.data), check=True, stdout=subprocess.DEVNULL)
    if not versions(TEACHER):
        tuned = tfbert.load(TEACHER)
        tfbert.export(tuned.task, tuned.model, tuned.tokenizer, TEACHER)
    folders = [TEACHER, *(student(number, options.data) for number in options.rows)]
    texts = [row["text"] for row in tfbert.read(options.data / NAME / "test.csv")[: options.texts]]
    times = seconds(folders, texts, options.rounds)
    about = [json.loads((folder / "metrics.json").read_text("utf-8")) for folder in folders]
    for number, own, fast in zip(options.rows, about[1:], times[1:], strict=True):
        found = compared(about[0], own, times[0], fast, len(texts))
        print(json.dumps({"benchmark": "distillation", "student": ROWS[number], **found}), flush=True)


if __name__ == "__main__":
    main()

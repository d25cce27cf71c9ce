"""What several workers cost: the time to add up numbers over them, and a training step's, by their number, over loopback.

    python benchmarks/workers.py build/data/sentiment_mr --workers 1 2 4 > build/bench-workers.json

Each worker has one thread of its own, so that two on two cores are two machines of one core, and four share them. The sums are of as many
float32 as --numbers says, as one tensor; 22.7 million are MiniLM's gradient. The step is `tfbert.fine_tune`'s, of MiniLM, with --batch-size
rows in each worker; the first steps, which trace, are left out. One JSON object on stdout for each number of workers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tfbert
from tfbert._compat import tf
from tfbert.callbacks import watching
from tfbert.workers import Workers

HERE = Path(__file__).resolve().parent
LAUNCHER = HERE.parent / "examples" / "local_workers.py"
LEFT_OUT = 5  # steps at the beginning


def median_ms(function, rounds: int) -> float:
    """Milliseconds of a call, after two that trace."""
    found = []
    for _ in range(rounds + 2):
        began = time.monotonic()
        function()
        found.append(time.monotonic() - began)
    return round(1000 * statistics.median(found[2:]), 3)


def summing(strategy, count: int):
    """The function that adds up so many float32 over the workers."""
    add = tf.function(lambda values: strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None))
    values = tf.ones([count])
    return lambda: add(values).numpy()


def training(options, workers: Workers) -> dict:
    """The step of `fine_tune`, as its progress sees it."""
    ends, reached = [], watching.Progress.on_train_batch_end

    def noted(self, batch, logs=None):
        reached(self, batch, logs)
        ends.append(time.monotonic())

    watching.Progress.on_train_batch_end = noted
    rows = tfbert.read(options.data / "train.csv")[: options.batch_size * workers.count * options.steps]
    with tempfile.TemporaryDirectory() as folder:
        tuned = tfbert.fine_tune(
            tfbert.SequenceClassification(max_length=64),
            "all-MiniLM-L6-v2",
            rows,
            rows[:16],
            directory=Path(folder) / "run",
            epochs=1,
            batch_size=options.batch_size * workers.count,
            precision=options.precision,
            strategy="multi-worker" if workers.count > 1 else "cpu",
            export=False,
            report=False,
            save_every=10_000,
        )
    found = [after - before for before, after in itertools.pairwise(ends)][LEFT_OUT:]
    return {
        "step_ms": round(1000 * statistics.median(found), 1),
        "step_ms_range": [round(1000 * edge, 1) for edge in (min(found), max(found))],
        "tokens_per_second": tuned.metrics["tokens_per_second"],
    }


def side(options) -> None:
    """One worker's part; the chief prints."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    workers = Workers("multi-worker" if options.workers[0] > 1 else "cpu")
    sums = {}
    if workers.count > 1:
        sums = {count: median_ms(summing(workers.strategy, count), options.rounds) for count in options.numbers}
        sums["what workers tell each other after a step"] = median_ms(lambda: workers.sums([0, 0, 0]), options.rounds)
    found = training(options, workers)
    if workers.chief:
        print(json.dumps({"workers": workers.count, "sum_ms": sums, **found}), flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path, help="a folder with train.csv, as prepare_data.py makes it")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--numbers", type=int, nargs="+", default=[1, 10_000, 1_000_000, 22_713_986])
    parser.add_argument("--rounds", type=int, default=10, help="of each sum (default 10)")
    parser.add_argument("--batch-size", type=int, default=16, help="rows of each worker (default 16)")
    parser.add_argument("--steps", type=int, default=25, help="default 25")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.side:
        side(options)
        return 0
    settings = [
        str(options.data),
        *("--numbers", *map(str, options.numbers)),
        *(
            word
            for name in ("rounds", "batch_size", "steps", "precision")
            for word in (f"--{name.replace('_', '-')}", str(getattr(options, name)))
        ),
    ]
    for count in options.workers:
        own = [sys.executable, str(HERE / "workers.py"), *settings, "--side", "--workers", str(count)]
        done = subprocess.run(
            [sys.executable, str(LAUNCHER), str(count), *own], check=True, stdout=subprocess.PIPE, text=True
        )
        for line in done.stdout.splitlines():
            if line.startswith("[0] {"):
                print(line.removeprefix("[0] "), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

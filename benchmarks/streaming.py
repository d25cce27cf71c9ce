"""Streams prepared data of synthetic lengths: peak memory, rows and tokens a second beside those of a training step, and restarts.

python benchmarks/streaming.py build/streaming                      # 5 million rows, written once: 1.2 GB
python benchmarks/streaming.py build/streaming-small --rows 200000

The records are written by the writer of `tfbert prepare` (synthetic_rows.py). A fresh process reads one whole epoch and does nothing else:
its peak memory is the reader's. At ten random places of it the next 200 batches must be those that a data set gives which begins there;
for a smaller data set all that is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from synthetic_rows import CHECKPOINT, write

import tfbert
from tfbert import prepared
from tfbert._compat import tf

LIMIT = 2 * 2**30  # bytes that the reading process may hold


def digest(batch) -> str:
    """The hash of all that is in a batch."""
    found = hashlib.sha256()
    for tensor in tf.nest.flatten(batch):
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def read(folder: str, batch_size: int, positions: list[int], compared: int) -> dict:
    """One whole epoch, in this process, and what follows each of the positions; then the same from data sets that begin there."""
    data, tokenizer = prepared.Prepared(folder), tfbert.load_tokenizer(CHECKPOINT)
    wanted: dict[int, list[str]] = {position: [] for position in positions}
    rows = tokens = 0
    began = time.monotonic()
    for number, batch in enumerate(data.dataset(tokenizer, batch_size=batch_size, seed=1)):
        rows += len(batch[2])
        tokens += int(tf.reduce_sum(batch[0]["attention_mask"]))
        own = [position for position in positions if position <= number < position + compared]
        if own:
            found = digest(batch)
            for position in own:
                wanted[position].append(found)
    seconds = time.monotonic() - began
    equal, waited = 0, []
    for position in positions:
        begun = time.monotonic()
        left = data.dataset(tokenizer, batch_size=batch_size, seed=1, start=(0, position)).take(compared)
        found = []
        for batch in left:
            if not found:
                waited.append(time.monotonic() - begun)
            found.append(digest(batch))
        equal += found == wanted[position]
    return {
        "rows": rows,
        "tokens": tokens,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "tokens_per_second": round(tokens / seconds),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "positions": positions,
        "batches_compared": sum(map(len, wanted.values())),
        "restarts_that_are_equal": equal,
        "seconds_to_the_first_batch": round(max(waited), 2),
    }


def train(folder: str, batch_size: int, steps: int) -> dict:
    """Rows a second of training steps of MiniLM on the same batches, without the first ones."""
    data, tokenizer = prepared.Prepared(folder), tfbert.load_tokenizer(CHECKPOINT)
    model = data.task.build(CHECKPOINT)
    model.compile(tfbert.AdamW(2e-5), loss=data.task.loss())
    batches = data.dataset(tokenizer, batch_size=batch_size, seed=1).repeat()
    model.fit(batches, steps_per_epoch=5, verbose=0)
    began = time.monotonic()
    model.fit(batches, steps_per_epoch=steps, verbose=0)
    return {"rows_per_second": round(steps * batch_size / (time.monotonic() - began), 1), "steps": steps}


def in_a_fresh_process(*words: str) -> dict:
    """What this script prints with other arguments."""
    command = [sys.executable, __file__, *words]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the data are, or will be")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--drawn", type=int, default=500_000, help="rows that differ; the others are these again")
    parser.add_argument(
        "--small", type=int, default=50_000, help="rows of the data set of which all that is left is compared"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--positions", type=int, default=10)
    parser.add_argument("--compared", type=int, default=200, help="batches behind each of them")
    parser.add_argument("--steps", type=int, default=20, help="training steps that are timed")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that write")
    parser.add_argument("--only", choices=("read", "train"), help="what a process of its own does")
    options = parser.parse_args(argv)
    size = options.batch_size
    if options.only == "train":
        print(json.dumps(train(options.folder, size, options.steps)))
        return 0
    if options.only == "read":
        steps = -(-len(prepared.Prepared(options.folder)) // size)
        places = sorted(np.random.default_rng(0).choice(steps, options.positions, replace=False).tolist())
        print(json.dumps(read(options.folder, size, places, options.compared)))
        return 0
    result: dict = {"benchmark": "streaming", "load_average": os.getloadavg()[0], "cores": os.cpu_count()}
    small = f"{options.folder.rstrip('/')}-restarts"
    for folder, rows in ((options.folder, options.rows), (small, options.small)):
        if not Path(folder).exists():
            began = time.monotonic()
            write(Path(folder), rows, options.drawn, options.threads)
            result[f"seconds_to_write_{rows}"] = round(time.monotonic() - began, 1)
    same = ["--batch-size", str(size), "--positions", str(options.positions)]
    result["read"] = in_a_fresh_process(options.folder, "--only", "read", *same, "--compared", str(options.compared))
    result["small"] = in_a_fresh_process(small, "--only", "read", *same, "--compared", str(options.small))
    result["training_step"] = in_a_fresh_process(
        options.folder, "--only", "train", *same, "--steps", str(options.steps)
    )
    result["times_a_training_step"] = round(
        result["read"]["rows_per_second"] / result["training_step"]["rows_per_second"], 1
    )
    print(json.dumps(result))
    fine = all(result[name]["restarts_that_are_equal"] == options.positions for name in ("read", "small"))
    return 0 if fine and result["read"]["peak_memory_mib"] * 2**20 < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

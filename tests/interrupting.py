"""Trains in processes that are killed at random, goes on in new ones, and compares the end with that of a run that nobody disturbed.

    python tests/interrupting.py CHECKPOINT [--kills 60] [--inside 20] [--terms 20] [--seed 0]

prints a line of JSON for each configuration; `tests/test_checkpoints.py` does a little of it. Processes are forked from one that has
imported TensorFlow but has not used it, which saves some seconds each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tfbert
from tfbert import checkpoints, files, models, training
from tfbert.callbacks import watching

WORDS = {"good": "good great lovely bright fine".split(), "bad": "bad awful dull boring not".split()}
CONFIGURATIONS = {
    "lean encoder": {},
    "TF Transformers' encoder, early stopping": {"encoder": "transformers", "patience": 1, "schedule": "constant"},
    "float16, loss scaling": {"precision": "float16", "schedule": "warmup-cosine"},
    "gradual unfreezing, averages": {"unfreeze": "gradual", "ema": 0.9, "schedule": "slanted-triangular"},
    "frozen layer, batches in parts": {"freeze": "embeddings,layers[:1]", "accumulate": 2, "r_drop": 0.5},
}
MEASURED = (
    "train_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "frozen_cache_seconds",
)  # of these no two runs are equal
EXIT = {signal.SIGTERM: 75, signal.SIGINT: 130}


def rows(count: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    labels = ["good", "bad"] * (count // 2)
    return [{"text": " ".join(rng.choice(WORDS[label], rng.integers(2, 9))), "label": label} for label in labels]


def fine_tune(checkpoint, directory, *, dropout=0.1, prepared=None, **options) -> tfbert.FineTuned:
    options = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32", "save_every": 0, **options}
    return training.fine_tune(
        tfbert.SequenceClassification(max_length=32, dropout=dropout),
        checkpoint,
        rows(128, 0) if prepared is None else tfbert.Prepared(prepared),
        rows(32, 1),
        test=rows(24, 2),
        directory=directory,
        export=False,
        report=False,
        **options,
    )


def digest(tuned: tfbert.FineTuned) -> dict:
    """All that must be equal, bit for bit."""

    def sha256(arrays) -> str:
        return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()

    metrics = {name: value for name, value in tuned.metrics.items() if name not in MEASURED}
    optimizer = tuned.model.optimizer
    return {
        "weights": sha256(tuned.model.get_weights()),
        "file": files.sha256(tuned.directory / "checkpoint" / "model.safetensors"),
        "optimizer": None if optimizer is None else sha256(variable.numpy() for variable in optimizer.variables),
        "random": sha256(variable.numpy() for variable in models.random_state(tuned.model)),
        "history": [{name: value for name, value in row.items() if name != "seconds"} for row in tuned.history],
        "metrics": json.loads(json.dumps(metrics)),
    }


def child(checkpoint, directory: Path, options: dict, inside: int) -> None:
    """Trains to the end, or kills itself at the `inside`-th thing it does to the disk while it saves (0: does not)."""
    log = open(directory.parent / "log", "a")  # noqa: SIM115 - the process's stderr to its end
    os.dup2(log.fileno(), 2)
    began = watching.Progress.on_train_batch_end

    def first_step(self, batch, logs=None):
        began(self, batch, logs)
        (directory.parent / "begun").touch()

    watching.Progress.on_train_batch_end = first_step
    if inside:
        kill_inside(inside)
    try:
        tuned = fine_tune(checkpoint, directory, **options)
    except tfbert.Interrupted as stop:
        sys.exit(stop.code)
    files.write_json(directory.parent / "digest.json", digest(tuned))


def kill_inside(number: int) -> None:
    done = 0

    def then_kill(function):
        def changed(*arguments, **named):
            nonlocal done
            done += 1
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return changed

    for module, name in (
        (os, "fsync"),
        (os, "rename"),
        (os, "replace"),
        (shutil, "rmtree"),
        (checkpoints, "save_file"),
    ):
        setattr(module, name, then_kill(getattr(module, name)))


def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["interrupting", "transformers.models.bert.modeling_tf_bert"])
    return context


def undisturbed(checkpoint, place: Path, options: dict) -> dict:
    place.mkdir()
    process = processes().Process(target=child, args=(checkpoint, place / "run", options, 0))
    process.start()
    process.join()
    assert process.exitcode == 0, (place / "log").read_text()
    return json.loads((place / "digest.json").read_text())


def disturbed(checkpoint, place: Path, options: dict, plan: list, rng: random.Random) -> tuple[dict, list]:
    """Runs and resumes until the end; `plan` says what happens to each process: a signal, or "inside" saving.

    Returns:
        The digest, and what happened: the plan's entries that came before the end.
    """
    place.mkdir()
    happened = []
    for what in [*plan, None]:
        (place / "begun").unlink(missing_ok=True)
        inside = rng.randint(1, 60) if what == "inside" else 0
        process = processes().Process(
            target=child, args=(checkpoint, place / "run", {**options, "resume": True}, inside)
        )
        process.start()
        if isinstance(what, signal.Signals):
            while process.is_alive() and not (place / "begun").exists():
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.4))
            if process.is_alive():
                os.kill(process.pid, what)
        process.join()
        if process.exitcode == 0:
            break
        expected = EXIT.get(what, -signal.SIGKILL)
        assert process.exitcode == expected, (process.exitcode, (place / "log").read_text())
        happened.append(what)
    assert not list(place.glob(".run*")), list(place.iterdir())
    return json.loads((place / "digest.json").read_text()), happened


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("checkpoint")
    parser.add_argument(
        "--kills", type=int, default=60, help="SIGKILLs at random moments, in all configurations together"
    )
    parser.add_argument("--inside", type=int, default=20, help="SIGKILLs while something is being saved")
    parser.add_argument("--terms", type=int, default=20, help="SIGTERMs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, wrong = random.Random(arguments.seed), 0
    kinds = {signal.SIGKILL: arguments.kills, "inside": arguments.inside, signal.SIGTERM: arguments.terms}
    for number, (name, options) in enumerate(CONFIGURATIONS.items()):
        left = [what for what, count in kinds.items() for _ in range(len(range(number, count, len(CONFIGURATIONS))))]
        rng.shuffle(left)
        with tempfile.TemporaryDirectory() as folder:
            expected = undisturbed(arguments.checkpoint, Path(folder) / "undisturbed", options)
            equal, runs, counts = 0, 0, dict.fromkeys(kinds, 0)
            while left:
                found, happened = disturbed(arguments.checkpoint, Path(folder) / f"run{runs}", options, left[:10], rng)
                for what in happened:
                    left.remove(what)
                    counts[what] += 1
                runs += 1
                equal += found == expected
            wrong += runs - equal
        counted = {getattr(what, "name", what): count for what, count in counts.items()}
        print(json.dumps({"configuration": name, **counted, "runs": runs, "equal": equal}), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

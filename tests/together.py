"""Trains in several workers over loopback, and compares the losses with one process's; kills a worker, and lets all go on.

    python tests/together.py CHECKPOINT [--layouts 1x1 1x2 2x1 1x4 2x2 4x1] [--kills 6] [--terms 4] [--seed 0]

prints a line of JSON for each layout (workers x replicas of each; without dropout, whose numbers each replica draws), and one for what was
interrupted: all must end with the bits of the run that nobody disturbed. `tests/test_workers.py` does a little of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import interrupting
import numpy as np

from tfbert._compat import tf
from tfbert.callbacks import watching
from tfbert.errors import InputError, Interrupted, WorkerLost

LIMIT = 90  # seconds within which the others must end when one is killed


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


def config(ports: list[int], index: int) -> str:
    """TF_CONFIG of one of several workers on this machine."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def child(checkpoint, directory: Path, options: dict, index: int, ports: list[int], replicas: int) -> None:
    """One worker; ends with its exit code, its digest in a file."""
    place = directory.parent
    log = open(place / f"log-{index}", "a")  # noqa: SIM115 - the process's stderr to its end
    os.dup2(log.fileno(), 2)
    if replicas > 1:
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    strategy = "mirrored" if replicas > 1 else "cpu"
    if len(ports) > 1:
        os.environ |= {"TF_CONFIG": config(ports, index), "TFBERT_WAIT_FOR_WORKERS": "60"}
        strategy = "multi-worker"
    reached = watching.Progress.on_train_batch_end

    def step(self, batch, logs=None):
        reached(self, batch, logs)
        (place / f"begun-{index}").touch()

    watching.Progress.on_train_batch_end = step
    try:
        tuned = interrupting.fine_tune(checkpoint, directory, **{"strategy": strategy, **options})
    except (InputError, Interrupted, WorkerLost) as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(getattr(error, "code", 2))
    (place / f"digest-{index}.json").write_text(json.dumps(interrupting.digest(tuned)))


def begin(checkpoint, place: Path, each: list[dict], replicas: int = 1) -> list:
    """Starts a worker for each of the options."""
    place.mkdir(exist_ok=True)
    for begun in place.glob("begun-*"):
        begun.unlink()
    ports, started = free_ports(len(each)), []
    for index, options in enumerate(each):
        arguments = (checkpoint, place / "run", options, index, ports, replicas)
        started.append(interrupting.processes().Process(target=child, args=arguments))
        started[-1].start()
    return started


def end(started: list, limit: float | None = None) -> list[int | None]:
    """The exit codes; None of one that still runs after so many seconds."""
    until = None if limit is None else time.monotonic() + limit
    for process in started:
        process.join(None if until is None else max(0.0, until - time.monotonic()))
    return [process.exitcode for process in started]


def digests(place: Path, count: int) -> list[dict]:
    return [json.loads((place / f"digest-{index}.json").read_text()) for index in range(count)]


def logs(place: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(place.glob("log-*")))


def undisturbed(checkpoint, place: Path, options: dict, workers: int, replicas: int = 1) -> list[dict]:
    """What each worker has at the end."""
    assert end(begin(checkpoint, place, [options] * workers, replicas)) == [0] * workers, logs(place)
    return digests(place, workers)


def strike(
    started: list, place: Path, index: int, what: signal.Signals, after: float, saved: bool = False
) -> list[int | None]:
    """Sends one worker a signal, some seconds after its first step, or after all have saved; returns the exit codes of all."""

    def begun() -> bool:
        states = list(place.glob(".run*.run/step-*/SHA256SUMS"))
        return (
            len({path.parents[1] for path in states}) == len(started) if saved else (place / f"begun-{index}").exists()
        )

    while all(process.is_alive() for process in started) and not begun():
        time.sleep(0.01)
    time.sleep(after)
    if started[index].is_alive():
        os.kill(started[index].pid, what)
    return end(started, LIMIT)


def disturbed(checkpoint, place: Path, options: dict, workers: int, plan: list, rng: random.Random) -> tuple[list, int]:
    """Runs and resumes until the end; of each process the plan says which worker gets which signal.

    Returns:
        The digests, and how many interruptions there were before the end.
    """
    for number, what in enumerate([*plan, None]):
        started = begin(checkpoint, place, [{**options, "resume": True}] * workers)
        if what is None:
            codes = end(started)
        else:
            struck = rng.randrange(workers)
            codes = strike(started, place, struck, what, rng.uniform(0, 0.5))
        if codes == [0] * workers:
            return digests(place, workers), number
        expected = [75] * workers
        if what == signal.SIGKILL:
            expected[struck] = -signal.SIGKILL
        assert codes == expected, (codes, expected, logs(place))
    raise AssertionError(logs(place))


def losses(found: dict) -> np.ndarray:
    return np.array([row["loss"] for row in found["history"]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--layouts", nargs="+", default="1x1 1x2 2x1 1x4 2x2 4x1".split(), help="the first is the measure"
    )
    parser.add_argument("--kills", type=int, default=6, help="SIGKILLs of one of two workers, at random moments")
    parser.add_argument("--terms", type=int, default=4, help="SIGTERMs")
    parser.add_argument("--seed", type=int, default=0)
    options, wrong = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        measure = None
        for layout in options.layouts:
            workers, replicas = map(int, layout.split("x"))
            found = undisturbed(options.checkpoint, folder / layout, {"dropout": 0.0}, workers, replicas)
            measure = losses(found[0]) if measure is None else measure
            apart = float(np.abs(losses(found[0]) - measure).max())
            wrong += any(each["weights"] != found[0]["weights"] for each in found)
            told = {"layout": layout, "losses": losses(found[0]).tolist(), "difference": apart}
            print(json.dumps({**told, "weights": found[0]["weights"][:16]}), flush=True)
        expected = undisturbed(options.checkpoint, folder / "undisturbed", {}, 2)
        rng, plan = random.Random(options.seed), [signal.SIGKILL] * options.kills + [signal.SIGTERM] * options.terms
        rng.shuffle(plan)
        runs, interruptions = 0, 0
        while interruptions < len(plan):
            found, happened = disturbed(
                options.checkpoint, folder / f"run{runs}", {}, 2, plan[interruptions : interruptions + 3], rng
            )
            wrong += found != expected
            runs, interruptions = runs + 1, interruptions + happened
        print(json.dumps({"interruptions": interruptions, "runs": runs, "different": wrong}), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

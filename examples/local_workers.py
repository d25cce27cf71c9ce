"""Runs one command as several workers on this machine, as a cluster runs it on several: each with its own TF_CONFIG.

    python examples/local_workers.py 2 tfbert fine-tune sequence-classification --train reviews.csv --output saved_models/reviews
    python examples/local_workers.py 4 python training.py

What the workers write goes to stdout and stderr, each line behind the worker's number. SIGTERM and Ctrl-C go to all of them; where one
dies, the others end by themselves. The exit code is the highest of theirs: 75, or 137 where one was killed, says that the same command
with --resume goes on.

With GPUs, let each worker see its own: CUDA_VISIBLE_DEVICES is set to the worker's number where the machine has as many or more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workers", type=int, help="how many")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what each of them runs")
    options = parser.parse_args(argv)
    if options.workers < 1:
        parser.error(f"workers is {options.workers}; it must be at least 1")
    if not options.command:
        parser.error("no command is given, such as tfbert fine-tune ...")
    return options


def addresses(count: int) -> list[str]:
    """Places on this machine at which nobody listens just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def environment(places: list[str], index: int) -> dict[str, str]:
    """What a worker finds in its environment beside what is there."""
    added = {"TF_CONFIG": json.dumps({"cluster": {"worker": places}, "task": {"type": "worker", "index": index}})}
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if gpus >= len(places) > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        added["CUDA_VISIBLE_DEVICES"] = str(index)
    return {**os.environ, **added}


def pass_on(source, target, index: int) -> None:
    """Writes each line as it comes."""
    for line in source:
        target.write(f"[{index}] {line}")
        target.flush()


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    places, started, readers = addresses(options.workers), [], []

    def to_all(number: int, frame) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, to_all) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for index in range(options.workers):
            try:
                # A session of its own: Ctrl-C comes from here, and once.
                process = subprocess.Popen(
                    options.command,
                    env=environment(places, index),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                sys.exit(f"local_workers.py: {options.command[0]} cannot be run: {error.strerror}")
            started.append(process)
            for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                readers.append(threading.Thread(target=pass_on, args=(source, target, index)))
                readers[-1].start()
        codes = [process.wait() for process in started]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for reader in readers:
        reader.join()
    return max(code if code >= 0 else 128 - code for code in codes)


if __name__ == "__main__":
    sys.exit(main())

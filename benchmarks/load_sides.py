"""The sides of load.py: how each is told what to do, and the one that is a Predictor, which speaks as load.c does.

load_sides.py THREADS MOST INTRA INTER TEXTS FOLDER EXPORT ...
"""

from __future__ import annotations

import gc
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from batch_scoring import TOLERANCE, parted

import tfbert
from tfbert._compat import tf
from tfbert.files import new_directory
from tfbert.serving.layout import new_version


class Program:
    """A process under load; it answers each line with a JSON object. Its first one comes when the load begins."""

    def __init__(self, command: list[str], log: Path):
        self._log = log
        with log.open("w") as file:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
            self.process = subprocess.Popen(command, text=True, **pipes)
        self._answer()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def report(self) -> dict:
        """What was answered since the last report."""
        return self._tell("report")

    def heap(self) -> dict:
        """What malloc has given out and not got back, and what it holds beside that, in MiB; of the Predictor's side nothing."""
        return self._tell("heap")

    def swap(self, export: int) -> None:
        """Loads one of the exports anew, beside the one that answers, and lets it answer from then on."""
        self._tell(f"swap {export}")

    def _tell(self, line: str) -> dict:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            told = self._log.read_text("utf-8", "replace")[-2000:]
            raise RuntimeError(f"{self.process.args[0]} ended with exit code {self.process.wait()}:\n{told}")
        return json.loads(line)


class Asking:
    """Threads that ask the newest version under a base folder, and compare each answer with the one expected."""

    def __init__(self, exports: list[str], texts: list[str], base: Path, *, threads: int, most: int):
        self._exports, self._texts, self._base, self._most = exports, texts, base, most
        self._expected = []
        for export in exports:
            predictor = tfbert.Predictor(export)
            self._expected.append([parted(predictor(text)) for text in texts])
            del predictor
            gc.collect()
        self._lock = threading.Lock()
        self._fresh()
        self.swap(0)
        for number in range(threads):
            threading.Thread(target=self._ask, args=(number,), daemon=True).start()

    def _fresh(self) -> None:
        self._latencies: list[float] = []
        self._rows, self._failures, self._different, self._apart = 0, 0, 0, 0.0

    def swap(self, number: int) -> None:
        """A copy of an export appears under the base folder as its newest version, and answers from now on."""
        version = new_version(self._base)
        with new_directory(version) as folder:
            shutil.copytree(self._exports[number], folder, dirs_exist_ok=True)
        predictor = tfbert.Predictor(self._base)
        if predictor.directory != version:
            raise RuntimeError(f"{predictor.directory} was opened, not {version}")
        predictor(self._texts[0])  # the first request makes the graph ready; as TF Serving's warmup, before others come
        # One assignment: a request has either this pair or the one before, whose Predictor goes with its last request.
        self._current = (predictor, self._expected[number])
        gc.collect()  # what a SavedModel is made of points to each other

    def report(self) -> dict:
        with self._lock:
            told = {"requests": len(self._latencies), "rows": self._rows, "failures": self._failures}
            told |= {"different": self._different, "largest_difference": self._apart, "latencies": self._latencies}
            self._fresh()
        return told

    def _ask(self, seed: int) -> None:
        draw = random.Random(seed)
        while True:
            chosen = [draw.randrange(len(self._texts)) for _ in range(draw.randint(1, self._most))]
            predictor, expected = self._current
            begin, answers = time.perf_counter(), None
            try:
                answers = predictor([self._texts[i] for i in chosen])
            except Exception as error:  # whatever it is, it is a request that failed
                print(repr(error), file=sys.stderr, flush=True)
            taken = time.perf_counter() - begin
            del predictor
            self._note(taken, len(chosen), answers and [apart(expected[i], a) for i, a in zip(chosen, answers)])

    def _note(self, taken: float, rows: int, distances: list[float] | None) -> None:
        with self._lock:
            self._latencies.append(taken)
            self._rows += rows
            self._failures += distances is None
            self._different += sum(not distance <= TOLERANCE for distance in distances or ())
            self._apart = max([self._apart, *(distance for distance in distances or () if distance < float("inf"))])


def apart(expected: tuple[list[float], object], answer: dict) -> float:
    """The largest difference of two answers' numbers; infinite where anything else differs."""
    (ours, words), (theirs, others) = expected, parted(answer)
    return max((abs(a - b) for a, b in zip(ours, theirs)), default=0.0) if words == others else float("inf")


def main(argv: list[str]) -> None:
    threads, most, intra, inter = map(int, argv[:4])
    tf.config.threading.set_intra_op_parallelism_threads(intra)
    tf.config.threading.set_inter_op_parallelism_threads(inter)
    texts = [bytes.fromhex(line).decode("utf-8") for line in Path(argv[4]).read_text("ascii").split("\n")[:-1]]
    base = Path(argv[5], "base")
    shutil.rmtree(base, ignore_errors=True)
    asking = Asking(argv[6:], texts, base, threads=threads, most=most)
    print(json.dumps(asking.report()), flush=True)
    for line in sys.stdin:
        if line.startswith("swap"):
            asking.swap(int(line.split()[1]))
            print(json.dumps({"swapped": int(line.split()[1])}), flush=True)
        else:
            print(json.dumps({} if line == "heap\n" else asking.report()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

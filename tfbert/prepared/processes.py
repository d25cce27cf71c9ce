"""Processes that make one part after the other, told and answered in lines of JSON through pipes.

Not `multiprocessing`: what it spawns runs the caller's script again, unless that is guarded, and lives on where its parent is killed. These
read jobs from their standard input, and end where that does.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys
import threading
import traceback

from tfbert import _compat
from tfbert.errors import InputError
from tfbert.prepared.parts import Job, Part


class Processes:
    """So many Python processes, which begin with their first job; leaving the block ends them.

    Args:
        count: how many.
    """

    def __init__(self, count: int):
        self._threads, self._own = concurrent.futures.ThreadPoolExecutor(count), threading.local()
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error) -> None:
        self._threads.shutdown(cancel_futures=True)
        for process in self._started:
            with contextlib.suppress(BrokenPipeError):  # of one that has died
                process.stdin.close()
            process.wait()
            process.stdout.close()

    def submit(self, job: Job) -> concurrent.futures.Future:
        """Has a part made, as soon as a process is free.

        Returns:
            The future of the part, or of the InputError that it raised.
        """
        return self._threads.submit(self._done, job)

    def _done(self, job: Job) -> Part:
        process = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = self._start()
        try:
            process.stdin.write(json.dumps(job.to_json(), default=str) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as died:
            raise InputError(
                "a process that tokenized has died, killed for want of memory perhaps; take fewer processes, and resume (--resume)"
            ) from died
        if "mistake" in answer:
            raise InputError(answer["mistake"])
        if "fault" in answer:
            raise RuntimeError(f"in another process:\n{answer['fault']}")
        return Part.from_json(answer)

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-c", "from tfbert.prepared.processes import serve; serve()"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        # Apart, so that Ctrl-C reaches the caller alone.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self._started.append(process)
        return process


def serve() -> None:
    """Makes what comes through standard input until it ends: what each of the processes runs."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed must not come between
    _compat.load_tensorflow()
    for line in sys.stdin:
        try:
            answer = Job.from_json(json.loads(line))().to_json()
        except InputError as error:
            answer = {"mistake": str(error)}
        except Exception:  # a fault, told in the caller's process
            answer = {"fault": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

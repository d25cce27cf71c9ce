"""Processes that do one job after the other, each told and answered through pipes.

Not `multiprocessing`: what it spawns runs the caller's script again, unless that is guarded, and lives on where its parent is killed. These
read jobs from their standard input, and end where that does.
"""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from tfbert import _compat
from tfbert.errors import InputError


class Processes:
    """So many Python processes, which begin with their first job; leaving the block ends them.

    Args:
        count: how many.

    Example:
        >>> import functools
        >>> with Processes(2) as processes:
        ...     [job.result() for job in [processes.submit(functools.partial(pow, 2, i)) for i in range(3)]]
        [1, 2, 4]
    """

    def __init__(self, count: int):
        self._threads, self._own = concurrent.futures.ThreadPoolExecutor(count), threading.local()
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error) -> None:
        self._threads.shutdown(cancel_futures=True)
        for process in self._started:
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def submit(self, job: Callable[[], Any]) -> concurrent.futures.Future:
        """Has a job done, as soon as a process is free.

        Args:
            job: a function without arguments, which can be pickled, as its result must be.

        Returns:
            The future of its result, or of the InputError that it raised.
        """
        return self._threads.submit(self._done, job)

    def _done(self, job: Callable[[], Any]):
        process = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = self._start()
        try:
            pickle.dump(job, process.stdin)
            process.stdin.flush()
            found, error = pickle.load(process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as died:
            raise InputError(
                "a process that tokenized has died, killed for want of memory perhaps; take fewer processes, and resume (--resume)"
            ) from died
        if error is not None:
            raise error
        return found

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-c", "from tfbert.prepared.processes import serve; serve()"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        # Apart, so that Ctrl-C reaches the caller alone.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self._started.append(process)
        return process


def serve() -> None:
    """Does what comes through standard input until it ends: what each of the processes runs."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed must not come between
    _compat.load_tensorflow()
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (job(), None)
        except InputError as error:
            answer = (None, error)
        except Exception:  # a fault, told in the caller's process
            answer = (None, RuntimeError(f"in another process:\n{traceback.format_exc()}"))
        pickle.dump(answer, answers)
        answers.flush()

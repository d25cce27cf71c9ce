"""Several workers: processes, on one machine or many, that train one model together and tell each other what only one of them knows."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfbert import devices
from tfbert._compat import tf, traced
from tfbert.errors import InputError, WorkerLost


class Workers:
    """The processes that train under a strategy: those that TF_CONFIG lists, each with the same call; else this one alone.

    What is told goes through the strategy's own collective operations, in which all take part in the same order: a call that one of
    them makes, all make. Alone, nothing is sent.

    Args:
        name: as `get_strategy` takes it.

    Attributes:
        strategy: the strategy to train under, or None where there is one device, and nothing to distribute.
        count: how many there are.
        index: which of them this is; 0 is the chief, who writes the output.

    Example:
        >>> alone = Workers("cpu")
        >>> alone.count, alone.index, alone.tell({"rows": 3}), alone.sums([1, 0])
        (1, 0, [{'rows': 3}], [1, 0])
    """

    def __init__(self, name: str = "cpu"):
        self.strategy = devices.replicated(name)
        self._addresses, self.index = {"worker:0": ""}, 0
        if isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self._addresses, self.index = devices.workers()
        self._add: Callable | None = None

    @property
    def count(self) -> int:
        return len(self._addresses)

    @property
    def chief(self) -> bool:
        return self.index == 0

    @property
    def replicas(self) -> int:
        """Equal parts of a batch that are computed side by side, those of all workers together."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def own(self) -> range:
        """Which of the parts this worker computes."""
        each = self.replicas // self.count
        return range(self.index * each, (self.index + 1) * each)

    def place(self, directory: str | Path, kind: str) -> Path:
        """Where this worker keeps what belongs to a run beside its output folder: `.NAME.kind`, or `.NAME.worker-1.kind`.

        Example:
            >>> Workers("cpu").place("saved_models/movies", "run").as_posix()
            'saved_models/.movies.run'
        """
        directory = Path(directory)
        own = "" if self.chief else f".worker-{self.index}"
        return directory.parent / f".{directory.name}{own}.{kind}"

    def sums(self, numbers: Sequence[int]) -> list[int]:
        """Adds up each number over the workers, which all give as many."""
        if self.count == 1:
            return list(numbers)
        if self._add is None:
            strategy = self.strategy
            # Made once: a function of its own for each call would be traced for each call.
            self._add = traced(
                lambda values: strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None),
                reduce_retracing=True,
            )
        # Each of a worker's replicas gives the numbers.
        return (self._add(tf.constant(numbers, tf.int64)).numpy() // len(self.own)).tolist()

    def tell(self, value: Any) -> list[Any]:
        """Returns what each worker has told, in their order.

        Args:
            value: of JSON; not a number and infinity are.
        """
        if self.count == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self.sums([len(text) if i == self.index else 0 for i in range(self.count)])
        ends = np.cumsum(lengths)
        whole = np.zeros(ends[-1], np.int64)
        whole[ends[self.index] - len(text) : ends[self.index]] = text
        parts = np.split(np.array(self.sums(whole.tolist()), np.uint8), ends[:-1])
        return [json.loads(part.tobytes()) for part in parts]

    def of_chief(self, function: Callable[[], Any]) -> Any:
        """What a function gives on the chief, where alone it is called; its InputError is everybody's."""
        value = None
        with self.agreeing():
            value = function() if self.chief else None
        return self.tell(value)[0]

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Surrounds what may fail on one worker alone: its InputError is then raised on all of them."""
        mine = None
        try:
            yield
        except InputError as error:
            mine = error
        found = self.tell(None if mine is None else str(mine))
        if mine is not None:
            raise mine
        for i, message in enumerate(found):
            if message is not None:
                raise InputError(f"worker {i}, {list(self._addresses.values())[i]}: {message}")

    def check_same(self, identity: Mapping[str, Any]) -> None:
        """Raises InputError, on all of them, where a worker trains with other arguments, data, checkpoint or versions than the chief."""
        identity = json.loads(json.dumps(identity))
        of_chief = self.tell(identity if self.chief else None)[0]
        names = [name for name in {**of_chief, **identity} if of_chief.get(name) != identity.get(name)]
        with self.agreeing():
            if names:
                told = "; ".join(f"{name}: {identity.get(name)!r} instead of {of_chief.get(name)!r}" for name in names)
                raise InputError(f"this worker differs from the chief, {told}; give all workers the same")

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Surrounds all that they do together: raises WorkerLost where another one has died or no longer answers."""
        if self.count == 1:
            yield
            return
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
            raise WorkerLost(
                f"{self._gone(str(error))}; start all workers again with resume (--resume), and they go on where they were saved"
            ) from error

    def _gone(self, message: str) -> str:
        """Who is gone, by what TensorFlow says of it."""
        for kind, task in reversed(re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message)):
            if address := self._addresses.get(f"{kind}:{task}"):
                return f"worker {list(self._addresses).index(f'{kind}:{task}')}, {address}, is gone"
        return "another worker does not answer"

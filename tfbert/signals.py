"""SIGTERM and Ctrl-C, noted for whoever stops at the next good place."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Signals:
    """Takes SIGTERM and Ctrl-C until it is left: the first of them is only noted, the next does what it would have done without.

    Outside the main thread Python cannot take signals, and nothing is done.

    Attributes:
        received: the signal that came, or None.

    Example:
        >>> with Signals() as signals:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     signals.received.name
        'SIGTERM'
    """

    def __enter__(self) -> Signals:
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame) -> None:
        self.received = signal.Signals(number)
        self.__exit__()

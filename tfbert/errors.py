"""The exception that a user's mistake raises, those that end a training from outside, and the hint for a misspelt name."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class InputError(ValueError):
    """A user's mistake, told in one line: where, what came, what was expected, how to mend it.

    The command line prints the message without a traceback and exits with code 2.

    Example:
        >>> raise InputError("train.csv:7: the label is empty; give every row a label or delete the row")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: train.csv:7: the label is empty; give every row a label or delete the row
    """


class Diverged(InputError):
    """A loss or a weight is no longer a finite number.

    Example:
        >>> issubclass(Diverged, InputError)
        True
    """


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C has ended a training, whose state is saved.

    Like Python's KeyboardInterrupt it is no Exception, so that no `except Exception` swallows it.

    Args:
        received: the signal.
        message: what was saved, and how to go on.

    Attributes:
        code: the exit code for a script: 75 after SIGTERM ("try again later", EX_TEMPFAIL in sysexits.h), 130 after Ctrl-C.

    Example:
        >>> Interrupted(signal.SIGTERM, "saved at epoch 2, step 41").code
        75
    """

    def __init__(self, received: signal.Signals, message: str):
        super().__init__(f"interrupted by {signal.Signals(received).name}; {message}")
        self.code = 75 if received == signal.SIGTERM else 130


class WorkerLost(RuntimeError):
    """Another worker of a training on several has died, or no longer answers, so that this one cannot go on.

    Attributes:
        code: the exit code for a script: 75, "try again later", as after SIGTERM.

    Example:
        >>> WorkerLost("worker 1 (10.0.0.2:12345) is gone; start all workers again with resume (--resume)").code
        75
    """

    code = 75


def suggest(name: str, options: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the option most like `name`, or "" where none is near.

    Args:
        name: what the user wrote.
        options: what would have been right.

    Example:
        >>> suggest("lable", ["label", "text"])
        " Did you mean 'label'?"
        >>> suggest("zebra", ["label", "text"])
        ''
    """
    near = difflib.get_close_matches(str(name), [str(option) for option in options], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""

"""The one exception that a user's mistake raises, and the hint for a misspelt name."""

from __future__ import annotations

import difflib
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

"""The values of an example's fields, checked: text, number, weight."""

from __future__ import annotations

import math

from tfbert.errors import InputError, suggest
from tfbert.sources import Examples


def value(examples: Examples, i: int, field: str):
    """The value of a field of row i, which must be there."""
    found = examples[i].get(field)
    if found is None:
        have = ", ".join(map(repr, examples[i]))
        raise InputError(f"{examples.where(i)}: no field {field!r}; the row has {have}.{suggest(field, examples[i])}")
    return found


def text(examples: Examples, i: int, field: str) -> str:
    """The text of a field of row i.

    Example:
        >>> text(Examples([{"txt": "good"}], source="train.csv", lines=[2]), 0, "text")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: train.csv:2: no field 'text'; the row has 'txt'. Did you mean 'txt'?
    """
    found = value(examples, i, field)
    if not isinstance(found, str):
        have = ", ".join(map(repr, examples[i]))
        raise InputError(f"{examples.where(i)}: {field!r} is {found!r}, not text; the row has {have}")
    return found


def number(examples: Examples, i: int, field: str) -> float:
    """The finite number of a field of row i, which may be written as text."""
    found = examples[i].get(field)
    try:
        result = float(found)
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise InputError(f"{examples.where(i)}: {field} is {found!r}; expected a finite number")
    return result


def weight(examples: Examples, i: int) -> float:
    """The weight of row i in the loss: its field "weight", or 1."""
    result = number(examples, i, "weight") if "weight" in examples[i] else 1.0
    if result < 0:
        raise InputError(f"{examples.where(i)}: weight is {result}; expected 0 or a positive number")
    return result

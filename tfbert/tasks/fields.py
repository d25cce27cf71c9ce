"""The values of an example's fields, checked: text, number, weight; and checks that several tasks' settings share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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


def emptied(value):
    """What is left of a value without what it says: texts become empty, numbers None.

    Example:
        >>> emptied(["a", "b"]), emptied("a"), emptied(3)
        (['', ''], '', None)
    """
    if isinstance(value, str):
        return ""
    return [emptied(each) for each in value] if isinstance(value, list | tuple) else None


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


def label(examples: Examples, i: int) -> str:
    """The one label name of row i."""
    found = value(examples, i, "label")
    if not isinstance(found, str | int) or not str(found).strip():
        raise InputError(f"{examples.where(i)}: label is {found!r}; expected one name (kind 'multi' takes lists)")
    return str(found).strip()


def labels(examples: Examples, i: int, separator: str) -> list[str]:
    """The label names of row i, any number: a list, or one string that `separator` parts."""
    found = value(examples, i, "label")
    names = found.split(separator) if isinstance(found, str) else found
    if not isinstance(names, list | tuple):
        raise InputError(f"{examples.where(i)}: label is {found!r}; expected a list of names or one string of names")
    return [str(name).strip() for name in names if str(name).strip()]


def among(what: str, name: str, known: Mapping[str, int], where: str) -> int:
    """The number of a label or tag; one that is not known is an InputError that names the nearest."""
    if name not in known:
        shown = ", ".join(list(known)[:10]) + (", ..." if len(known) > 10 else "")
        raise InputError(f"{where}: {what} {name!r} is not one of: {shown}.{suggest(name, known)}")
    return known[name]


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises InputError where a setting is none of its choices, naming the nearest.

    Example:
        >>> one_of("pooling", "meen", ("mean", "max"))
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: pooling is 'meen'; it must be one of mean, max. Did you mean 'mean'?
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.{suggest(value, choices)}")


def positive(name: str, value: float | None) -> None:
    """Raises InputError where a setting that is given is no positive number."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name} is {value}; it must be a positive number")


def fraction(name: str, value: float | None) -> None:
    """Raises InputError where a setting that is given is not at least 0 and below 1."""
    if value is not None and not 0 <= value < 1:
        raise InputError(f"{name} is {value}; it must be at least 0 and below 1")


def numbers(name: str, values: Sequence[float], count: int, *, positive: bool) -> None:
    """Raises InputError where a setting that is given has not one finite (and positive) number for each of `count` labels."""
    if values and len(values) != count:
        raise InputError(f"{name} has {len(values)} values for {count} labels; give one for each, in their order")
    if not all(math.isfinite(value) and (value > 0 or not positive) for value in values):
        kind = "positive" if positive else "finite"
        raise InputError(f"{name} is {', '.join(map(str, values))}; each must be a {kind} number")

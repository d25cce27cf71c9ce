"""Rows of texts -> the string tensors that a signature takes; an input is [B], or [B, C] where a row has C texts under one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfbert._compat import tf

Shapes = Mapping[str, Sequence[int | None]]


def feeds(rows: Sequence[Mapping[str, Any]], shapes: Shapes) -> dict[str, Any]:
    """Returns the rows {input: text, or list of C texts} as string tensors, by input.

    Example:
        >>> feeds([{"text": "a", "choices": ["b", "c"]}], {"text": [None], "choices": [None, 2]})["choices"].shape
        TensorShape([1, 2])
    """
    return {
        name: tf.constant([row[name] for row in rows], tf.string, [len(rows), *shape[1:]])
        for name, shape in shapes.items()
    }


def spread(texts: Sequence, shapes: Shapes) -> list[dict[str, Any]]:
    """Makes rows of a list of texts, one text a row for every input; the k-th text of a row is the one 7 k further in the list.

    Example:
        >>> spread(["a", "b"], {"text": [None], "choices": [None, 2]})
        [{'text': 'a', 'choices': ['b', 'a']}, {'text': 'b', 'choices': ['a', 'b']}]
    """
    made = []
    for i in range(len(texts)):
        row, k = {}, 0
        for name, shape in shapes.items():
            count = shape[1] if len(shape) > 1 else 1
            picked = [texts[(i + 7 * (k + c)) % len(texts)] for c in range(count)]
            row[name] = picked if len(shape) > 1 else picked[0]
            k += count
        made.append(row)
    return made


def fits(value, shape: Sequence[int | None], kinds: type | tuple[type, ...] = str) -> bool:
    """Whether a value is what one row of an input holds: a text, or a list of as many as the shape says.

    Example:
        >>> fits("a", [None]), fits(["a", "b"], [None, 2]), fits(["a"], [None, 2])
        (True, True, False)
    """
    if len(shape) == 1:
        return isinstance(value, kinds)
    return (
        isinstance(value, list | tuple)
        and all(isinstance(text, kinds) for text in value)
        and shape[1] in (None, len(value))
    )


def described(shapes: Shapes) -> str:
    """What a row must hold, for messages.

    Example:
        >>> described({"text": [None], "choices": [None, 4]})
        'text, choices (a list of 4)'
    """
    return ", ".join(
        name if len(shape) == 1 else f"{name} (a list of {shape[1] or 'texts'})" for name, shape in shapes.items()
    )

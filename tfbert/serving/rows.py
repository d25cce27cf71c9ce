"""Tensors of a signature -> one plain Python dict per row, as TF Serving's row format gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def rows(outputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Turns arrays with the same first dimension into one dict per row.

    An output [B] becomes a scalar in each row, an output [B, L] a list, as in the `predictions` of TF Serving's row format (which
    drops the name where a signature has a single output; here it stays). Strings are decoded from UTF-8; what is not UTF-8 becomes
    U+FFFD. Where a row has entities, as many as `count` says, its lists are cut to as many: the padding beyond them comes from the other
    rows of the batch, not from its text.

    Args:
        outputs: name -> array [B, ...] of numbers, booleans or bytes.

    Returns:
        A list of B dicts with str, float, int, bool or (nested) lists of them.

    Example:
        >>> outputs = {"label": np.array([b"good", b"bad"], object), "scores": np.array([[0.75, 0.25], [0.5, 0.5]], np.float32)}
        >>> rows(outputs)
        [{'label': 'good', 'scores': [0.75, 0.25]}, {'label': 'bad', 'scores': [0.5, 0.5]}]
        >>> rows({"entity": np.array([[b"Zurich", b""]], object), "count": np.array([1], np.int32)})
        [{'entity': ['Zurich'], 'count': 1}]
    """
    columns = {name: _plain(np.asarray(array)) for name, array in outputs.items()}
    made = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if "count" not in outputs:
        return made
    return [
        {name: value[: row["count"]] if isinstance(value, list) else value for name, value in row.items()}
        for row in made
    ]


def _plain(array: np.ndarray) -> list:
    if array.dtype.kind in "OSU":
        return _decoded(array.tolist())
    if array.dtype.kind not in "biuf":  # bfloat16 is not one of NumPy's own kinds
        array = array.astype(np.float32)
    return array.tolist()


def _decoded(value):
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

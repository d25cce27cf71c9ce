"""Parquet, through pyarrow where it is installed."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Mapping

from tfbert.errors import InputError
from tfbert.sources.columns import checked
from tfbert.sources.decoding import load_bytes
from tfbert.sources.examples import Examples


def read_parquet(path: str | os.PathLike, *, columns: Mapping[str, str] | None = None) -> Examples:
    """Reads a Parquet file; values keep their types, and rows are named by their number, counted from 1.

    Args:
        path: the file; .gz is decompressed.
        columns: from field to column, such as {"text": "sentence"}; None keeps every name.

    Raises:
        InputError: pyarrow is not installed, or what is wrong with the file.

    Example:
        >>> import pathlib, pyarrow, pyarrow.parquet, tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "train.parquet"
        >>> pyarrow.parquet.write_table(pyarrow.table({"sentence": ["good", "bad"], "label": [1, 0]}), place)
        >>> read_parquet(place, columns={"text": "sentence"})
        [{'text': 'good', 'label': 1}, {'text': 'bad', 'label': 0}]
    """
    data = load_bytes(path)
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        damage = importlib.import_module("pyarrow").ArrowException, OSError, ValueError
    except ImportError as error:
        remedy = "pip install pyarrow, or write the data as JSON Lines"
        raise InputError(f"{path}: Parquet needs pyarrow, which is not installed; {remedy}") from error
    try:
        table = parquet.read_table(io.BytesIO(data))
        names, rows = table.column_names, table.to_pylist()
    except damage as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a whole Parquet file ({reason}); write it again") from error
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(f"{path}: two columns are named {name!r}; give each its own name")
    return checked(rows, str(path), columns=columns)

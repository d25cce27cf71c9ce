"""Parquet, through pyarrow where it is installed."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence

from tfbert.errors import InputError
from tfbert.sources.columns import checked
from tfbert.sources.decoding import check_file, load_bytes
from tfbert.sources.examples import Examples

ROWS = 4096  # that are read at once, as they come


def read_parquet(
    path: str | os.PathLike, *, columns: Mapping[str, str] | None = None, labelled: bool = True
) -> Examples:
    """Reads a Parquet file; values keep their types, and rows are named by their number, counted from 1.

    Args:
        path: the file; .gz is decompressed.
        columns: from field to column, such as {"text": "sentence"}; None keeps every name.
        labelled: whether each row needs a label, where there are labels (default True); False does not look at them.

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
    parquet, damage = _pyarrow(path)
    try:
        table = parquet.read_table(io.BytesIO(data))
        names, rows = table.column_names, table.to_pylist()
    except damage as error:
        raise _not_whole(path, error) from error
    _check_names(path, names)
    return checked(rows, str(path), columns=columns, labelled=labelled)


class ParquetRows:
    """The rows of a Parquet file, plain dicts as they come, some of them in memory at a time.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike):
        check_file(path)
        self.source, self._read = str(path), 0
        parquet, self._damage = _pyarrow(path)
        try:
            self._file = parquet.ParquetFile(path)
        except self._damage as error:
            raise _not_whole(path, error) from error
        _check_names(path, self._file.schema_arrow.names)

    def __iter__(self) -> Iterator[dict]:
        try:
            for batch in self._file.iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    self._read += 1
                    yield row
        except self._damage as error:
            raise _not_whole(self.source, error) from error
        if not self._read:
            raise InputError(f"{self.source}: there are no rows in it")

    def share(self) -> float:
        """Which part of it was read, 0 to 1."""
        return self._read / max(1, self._file.metadata.num_rows)

    def notes(self) -> list[str]:
        """What was found odd: nothing."""
        return []


def _pyarrow(path):
    """pyarrow's module for Parquet, and the errors that damaged files are told by."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        return parquet, (importlib.import_module("pyarrow").ArrowException, OSError, ValueError)
    except ImportError as error:
        remedy = "pip install pyarrow, or write the data as JSON Lines"
        raise InputError(f"{path}: Parquet needs pyarrow, which is not installed; {remedy}") from error


def _not_whole(path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{path}: not a whole Parquet file ({reason}); write it again")


def _check_names(path, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(f"{path}: two columns are named {name!r}; give each its own name")

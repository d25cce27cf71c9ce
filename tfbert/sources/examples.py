"""Examples: a list of plain dicts that knows the place of each, and the cleaning that every value goes through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike

import numpy as np

from tfbert.errors import InputError

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEEPEST = 64  # far above any real row; keeps a nesting bomb or a list that holds itself from exhausting the stack


class Examples(list):
    """A list of plain dicts, one a row, that knows the place of each row.

    It is a list in every way; treat it as fixed, since rows that are moved in place take no places with them. A slice
    and `select` give Examples again and keep the places.

    Args:
        rows: the dicts.
        source: the file's path or the data's name, for messages.
        lines: the line on which each row begins, counted from 1, or its place in a document, such as "data[2].qas[0]"; None where rows
            have neither (Parquet, memory).
        rows_at: the number of each row in its source, counted from 1 (default: 1, 2, 3, ...).
        notes: what the reader changed or found odd, one sentence each; the command line prints them to stderr.

    Example:
        >>> examples = Examples([{"text": "good"}, {"text": "bad"}], source="train.csv", lines=[2, 5])
        >>> examples.where(1)
        'train.csv:5'
        >>> examples[1:].where(0)
        'train.csv:5'
        >>> from_iterable([{"text": "good"}], source="my list").where(0)
        'row 1 of my list'
    """

    def __init__(
        self,
        rows: Iterable[dict] = (),
        *,
        source: str = "examples",
        lines: Sequence[int | str] | None = None,
        rows_at: Sequence[int] | None = None,
        notes: Iterable[str] = (),
    ):
        super().__init__(rows)
        self.source = source
        self.lines = lines
        self.rows_at = range(1, len(self) + 1) if rows_at is None else rows_at
        self.notes = list(notes)

    def where(self, index: int) -> str:
        """The place of a row, for messages: "train.csv:17", or "row 18 of my list" where there are no lines."""
        if self.lines is not None:
            return f"{self.source}:{self.lines[index]}"
        return f"row {self.rows_at[index]} of {self.source}"

    def select(self, indices: Iterable[int]) -> Examples:
        """The rows at `indices`, in that order, with their places; the notes stay with the whole."""
        indices = [int(index) for index in indices]
        return Examples(
            [list.__getitem__(self, index) for index in indices],
            source=self.source,
            lines=None if self.lines is None else [self.lines[index] for index in indices],
            rows_at=[self.rows_at[index] for index in indices],
        )

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return super().__getitem__(index)

    def fields(self) -> list[str]:
        """The names that at least one row has, sorted."""
        return sorted(set().union(*self))


def from_iterable(rows, source: str = "examples", *, keep_nuls: bool = False) -> Examples:
    """Makes Examples of any iterable of dicts: a list, a generator, a pandas DataFrame, a Hugging Face dataset.

    NumPy scalars and arrays become Python's, tuples become lists, bytes are decoded as UTF-8; NUL characters are
    removed and lone surrogates replaced by U+FFFD, and both are counted in `notes`. Examples are returned as they are.

    Args:
        rows: the rows; each a mapping from a field's name to its value.
        source: what messages call the data (default "examples").
        keep_nuls: leave NUL characters where they are: texts to be answered, whose places count every character (default False).

    Raises:
        InputError: names the first row that is not a mapping.

    Example:
        >>> from_iterable([{"text": "good", "label": 1}, {"text": "bad", "label": 0}])[1]
        {'text': 'bad', 'label': 0}
        >>> from_iterable(["good", "bad"], source="my list")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: row 1 of my list: a row must be a dict such as {'text': '...'}, got str
    """
    if isinstance(rows, Examples):
        return rows
    wrong = f"{source}: expected a list of dicts, got"
    if isinstance(rows, (str, bytes, PathLike)):
        raise InputError(f"{wrong} {type(rows).__name__}; read a file with tfbert.read(path)")
    if isinstance(rows, Mapping):
        names = ", ".join(repr(name) for name in list(rows)[:8])
        raise InputError(f"{wrong} one dict with the keys {names}; pick one of them, or put the dict in a list")
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a pandas DataFrame iterates over its column names
        rows = rows.to_dict("records")
    if not isinstance(rows, Iterable):
        raise InputError(f"{wrong} {type(rows).__name__}")
    cleaning = Cleaning(keep_nuls=keep_nuls)
    clean = [cleaning.row(row, f"row {number} of {source}") for number, row in enumerate(rows, 1)]
    return Examples(clean, source=source, notes=cleaning.notes(source))


class Cleaning:
    """Makes values plain Python, and counts what it had to remove or replace.

    Example:
        >>> cleaning = Cleaning()
        >>> cleaning.row({"text": "a\\x00b", "label": np.int64(3)}, "row 1 of examples")
        {'text': 'ab', 'label': 3}
        >>> cleaning.notes("examples")
        ['examples: 1 NUL character removed']
    """

    def __init__(self, *, keep_nuls: bool = False):
        self._keep_nuls = keep_nuls
        self.nuls = 0
        self.surrogates = 0

    def row(self, row, place: str) -> dict:
        if not isinstance(row, Mapping):
            raise InputError(f"{place}: a row must be a dict such as {{'text': '...'}}, got {type(row).__name__}")
        return self._value(dict(row), place, 0)

    def notes(self, source: str) -> list[str]:
        notes = []
        if self.nuls:
            notes.append(f"{source}: {counted(self.nuls, 'NUL character')} removed")
        if self.surrogates:
            notes.append(f"{source}: {counted(self.surrogates, 'lone surrogate')} replaced by U+FFFD")
        return notes

    def _value(self, value, place: str, depth: int):
        if type(value) is str:
            return self._text(value)
        if isinstance(value, np.generic):
            value = value.item()
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError as error:
                what = f"bytes that are not UTF-8 ({error.reason} at byte {error.start + 1})"
                raise InputError(f"{place}: {what}; decode them first") from error
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (dict, list, tuple)):
            if depth >= _DEEPEST:
                raise InputError(f"{place}: lists or dicts nested more than {_DEEPEST} deep; flatten the row")
            if not isinstance(value, dict):
                return [self._value(item, place, depth + 1) for item in value]
            for name in value:
                if not isinstance(name, str):
                    raise InputError(f"{place}: a field's name must be text, got {name!r}")
            return {name: self._value(item, place, depth + 1) for name, item in value.items()}
        return value

    def _text(self, text: str) -> str:
        if text.isascii() and "\0" not in text or not _UNFIT.search(text):
            return text
        if not self._keep_nuls:
            self.nuls += text.count("\0")
            text = text.replace("\0", "")
        text, found = _SURROGATE.subn("\ufffd", text)
        self.surrogates += found
        return text


def counted(number: int, thing: str) -> str:
    """A number with its noun, in the plural where it must be.

    Example:
        >>> counted(1, "row"), counted(1200, "row")
        ('1 row', '1,200 rows')
    """
    return f"{number:,} {thing}" + ("" if number == 1 else "s")

"""JSON, one object a line or a whole document; strict: no duplicate keys, no NaN, no bottomless nesting."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfbert.errors import InputError
from tfbert.sources.columns import MAX_CHARACTERS, checked
from tfbert.sources.decoding import load_text
from tfbert.sources.examples import Examples

_GAP = re.compile(r"[ \t\r\n]*")


def read_jsonl(
    path: str | os.PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
    labelled: bool = True,
) -> Examples:
    """Reads JSON Lines: one object a line; blank lines are skipped.

    Args:
        path: the file; .gz is decompressed.
        columns: from field to key, such as {"text": "sentence1"}; None keeps every name.
        encoding: any that Python knows (default "utf-8").
        max_characters: the longest text allowed (default 1,000,000).
        labelled: whether each row needs a label, where there are labels (default True); False does not look at them.

    Raises:
        InputError: what is wrong, with file:line.

    Example:
        >>> import pathlib, tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "train.jsonl"
        >>> _ = place.write_text('{"text": "good", "label": 1}\\n\\n{"text": "bad", "label": 0}\\n')
        >>> examples = read_jsonl(place)
        >>> examples[1], examples.lines
        ({'text': 'bad', 'label': 0}, [1, 3])
    """
    text, notes = load_text(path, encoding)
    found = list(values(path, text.split("\n")))
    lines, rows = [line for line, _ in found], [row for _, row in found]
    how = {"columns": columns, "max_characters": max_characters, "labelled": labelled}
    return checked(rows, str(path), lines, **how, notes=notes)


def values(path, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """The value on each line that is not blank, with the line's number."""
    decoder = _decoder()
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = decoder.decode(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}: {_told(error)}; expected one JSON object a line") from error
            yield number, value


def read_json(
    path: str | os.PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
    labelled: bool = True,
) -> Examples:
    """Reads a JSON document: a list of objects, such a list under the key "data", or one list for each column.

    Args:
        path: the file; .gz is decompressed.
        columns: from field to key, such as {"text": "sentence1"}; None keeps every name.
        encoding: any that Python knows (default "utf-8").
        max_characters: the longest text allowed (default 1,000,000).
        labelled: whether each row needs a label, where there are labels (default True); False does not look at them.

    Returns:
        Examples; the rows of a list know the lines on which they begin, the others their number.

    Raises:
        InputError: what is wrong, with file:line.

    Example:
        >>> import pathlib, tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "train.json"
        >>> _ = place.write_text('{"text": ["good", "bad"], "label": [1, 0]}')
        >>> read_json(place)
        [{'text': 'good', 'label': 1}, {'text': 'bad', 'label': 0}]
    """
    text, notes = load_text(path, encoding)
    start = _GAP.match(text).end()
    if text[start : start + 1] == "[":
        rows, lines = _items(path, text, start)
    else:
        rows, lines = _rows(path, document(path, text)), None
    how = {"columns": columns, "max_characters": max_characters, "labelled": labelled}
    return checked(rows, str(path), lines, **how, notes=notes)


def document(path, text: str):
    """The value of a whole JSON document; what is wrong with it is an InputError with file:line."""
    try:
        return _decoder().decode(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{getattr(error, 'lineno', 1)}: {_told(error)}") from error


def _items(path, text: str, start: int) -> tuple[list, list[int]]:
    """The values of the list that opens at text[start] and fills the rest, and the line on which each begins."""
    decoder, rows, lines = _decoder(), [], []
    line, seen = 1, 0
    position = _GAP.match(text, start + 1).end()
    closed = text[position : position + 1] == "]"
    try:
        while not closed:
            line, seen = line + text.count("\n", seen, position), position
            value, end = decoder.raw_decode(text, position)
            rows.append(value)
            lines.append(line)
            position = _GAP.match(text, end).end()
            closed = text[position : position + 1] == "]"
            if not closed:
                if text[position : position + 1] != ",":
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
                position = _GAP.match(text, position + 1).end()
        if (position := _GAP.match(text, position + 1).end()) < len(text):
            raise json.JSONDecodeError("Extra data", text, position)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{getattr(error, 'lineno', line)}: {_told(error)}") from error
    return rows, lines


def _rows(path, value) -> list:
    """The rows of a document that is not itself a list."""
    wanted = 'expected a list of objects, {"data": [...]} of the same, or one list for each column'
    if not isinstance(value, dict):
        raise InputError(f"{path}: {wanted}; got {type(value).__name__}")
    data = value.get("data")
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        return data
    odd = [name for name, column in value.items() if not isinstance(column, list)]
    if odd or not value:
        raise InputError(f"{path}: {wanted}; got an object with the keys {', '.join(map(repr, value)) or 'none'}")
    lengths = {name: len(column) for name, column in value.items()}
    if len(set(lengths.values())) > 1:
        unequal = ", ".join(f"{name!r} {length:,}" for name, length in lengths.items())
        raise InputError(f"{path}: the columns have different lengths ({unequal}); give every column as many values")
    return [dict(zip(value, row)) for row in zip(*value.values())]


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)


def _object(pairs: list[tuple]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object; give each value its own key")
    return value


def _no_number(name: str):
    raise ValueError(f"{name} is not a JSON number; write null or leave the key out")


def _told(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at column {error.colno})"
    return "lists or objects nested too deeply; flatten the rows" if isinstance(error, RecursionError) else str(error)

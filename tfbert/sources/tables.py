"""CSV and TSV by RFC 4180, every value a string, every error with the line it is on."""

from __future__ import annotations

import csv
import functools
import io
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfbert.errors import InputError
from tfbert.sources.columns import MAX_CHARACTERS, check_labels, check_texts, plan
from tfbert.sources.decoding import load_text
from tfbert.sources.examples import Examples, counted

_UNQUOTED = "pass quoting=False (--no-quoting)"


class _Table(NamedTuple):
    names: list[str]
    place: str  # of the names
    records: list[list[str]]
    lines: list[int]  # the line on which each record begins


def read_csv(
    path: str | os.PathLike,
    *,
    delimiter: str = ",",
    quoting: bool | None = True,
    columns: Mapping[str, str] | None = None,
    header: Sequence[str] | None = None,
    drop_extra: bool = False,
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
) -> Examples:
    """Reads a table of delimited text: one example a record, every value a string.

    Quoted fields may hold delimiters, line breaks (kept as they are) and doubled quotes; blank lines are skipped. "NA",
    "null" and "None" are text like any other. A quote inside an unquoted field is a plain character.

    Args:
        path: the file; .gz is decompressed.
        delimiter: one character (default ",").
        quoting: True, double quotes enclose fields (default); False, a quote is a plain character, as in GLUE's files;
            None, whichever of the two gives every record the right number of columns, quoting first.
        columns: from field to column, such as {"text": "sentence", "label": "category"}; None keeps every name.
        header: the columns' names, for a file without a header line; None takes them from the first record.
        drop_extra: drop what a record has beyond the header's columns, as the files of STS-B need (default False: an
            error).
        encoding: any that Python knows (default "utf-8").
        max_characters: the longest field allowed (default 1,000,000).

    Returns:
        Examples whose places are the lines on which the records begin.

    Raises:
        InputError: what is wrong with the file, with file:line.

    Example:
        >>> import pathlib, tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "train.csv"
        >>> _ = place.write_text('sentence,label\\n"good, very",pos\\nbad,neg\\n')
        >>> read_csv(place, columns={"text": "sentence"})
        [{'text': 'good, very', 'label': 'pos'}, {'text': 'bad', 'label': 'neg'}]
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(f"delimiter={delimiter!r}: expected one character, such as ',' or '\\t'")
    if isinstance(header, str):
        raise InputError(f"header={header!r}: expected a list of names, such as ['text', 'label']")
    text, notes = load_text(path, encoding)
    parse = functools.partial(_parsed, path, text, delimiter, header=header, drop_extra=drop_extra)
    if quoting is None:
        table, note = _detected(path, text, parse)
        notes += note
    else:
        table = parse(quoting)
    fields = plan(table.names, columns, table.place, _other_delimiter(table.names))
    rows = [{field: record[index] for field, index in fields} for record in table.records]
    examples = Examples(rows, source=str(path), lines=table.lines, notes=notes)
    if extra := sum(len(record) > len(table.names) for record in table.records):
        examples.notes.append(f"{path}: {counted(extra, 'row')} with more columns than the header, surplus dropped")
    if len(text) > max_characters:
        check_texts(examples, max_characters)
    check_labels(examples)
    return examples


def _detected(path, text: str, parse) -> tuple[_Table, list[str]]:
    """The reading that fits, quoted first; unquoted also where quotes would join lines that each have all columns."""
    if '"' not in text:
        return parse(False), []
    try:
        quoted = parse(True)
    except InputError as error:
        quoted, refusal = None, error
    try:
        unquoted = parse(False)
    except InputError:
        if quoted is None:
            raise refusal from None
        return quoted, []
    if quoted is not None and len(quoted.records) == len(unquoted.records):
        return quoted, []
    return unquoted, [f"{path}: read without quoting: its quotes do not pair as CSV wants (quoting=True insists on it)"]


def _parsed(path, text: str, delimiter: str, quoting: bool, *, header, drop_extra: bool) -> _Table:
    """The records, at least one, all as wide as the header."""
    records, lines = _quoted(path, text, delimiter) if quoting else _unquoted(text, delimiter)
    if not records:
        raise InputError(f"{path}: the file is empty; expected a header line and a row for each example")
    if header is None:
        names, place = records.pop(0), f"{path}:{lines.pop(0)}"
    else:
        names, place = list(header), str(path)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(f"{place}: two columns are named {name!r}; give each its own name")
    if not records:
        raise InputError(f"{place}: only a header line ({', '.join(map(repr, names))}) and no rows")
    for record, line in zip(records, lines):
        if len(record) != len(names) and not (drop_extra and len(record) > len(names)):
            raise InputError(f"{path}:{line}: {_ragged(record, names, line, quoting)}")
    return _Table(names, place, records, lines)


def _quoted(path, text: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    # A line ends at \n as editors and sed count; a file without any \n is an old one whose lines end at \r.
    end = "\n" if "\n" in text else ""
    csv.field_size_limit(max(csv.field_size_limit(), min(len(text) + 1, 2**31 - 1)))
    reader = csv.reader(io.StringIO(text, newline=end), delimiter=delimiter, strict=True)
    records, lines, line = [], [], 1
    try:
        for record in reader:
            if record:
                records.append(record)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        quote = _open_quote(text, _offset(text, line, end or "\r"), delimiter)
        if quote is None:
            what = "a carriage return (\\r) outside quotes; put the field in double quotes"
            raise InputError(f"{path}:{reader.line_num}: {what}") from error
        line = text.count(end or "\r", 0, quote) + 1
        raise InputError(
            f"{path}:{line}: a double quote opens here and is not closed before a {delimiter!r} or a line end; the "
            f"file seems to be written without quoting; {_UNQUOTED}"
        ) from error
    return records, lines


def _unquoted(text: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    records, lines = [], []
    for number, line in enumerate(text.split("\n" if "\n" in text else "\r"), 1):
        if line := line.removesuffix("\r"):
            records.append(line.split(delimiter))
            lines.append(number)
    return records, lines


def _offset(text: str, line: int, end: str) -> int:
    offset = 0
    for _ in range(line - 1):
        offset = text.index(end, offset) + 1
    return offset


def _open_quote(text: str, offset: int, delimiter: str) -> int | None:
    """Where, in the record that begins at `offset`, a quote opens that is never closed rightly; None for nowhere."""
    after = re.escape(delimiter)
    field = re.compile(rf'(?:"[^"]*(?:""[^"]*)*"|(?!")[^{after}\r\n]*)(?=[{after}\r\n]|\Z)')
    while match := field.match(text, offset):
        if text[match.end() : match.end() + 1] != delimiter:
            return None
        offset = match.end() + 1
    return offset


def _ragged(record: list[str], names: list[str], line: int, quoting: bool) -> str:
    """The message for a record with the wrong number of columns, and its likeliest cause."""
    breaks = sum(field.count("\n") for field in record)
    if breaks:
        cause = f"the row spans lines {line} to {line + breaks}: if the file is written without quoting, {_UNQUOTED}"
    elif len(record) < len(names):
        cause = "fill the missing columns, or leave them empty between delimiters"
    elif quoting:
        cause = "put a text that holds the delimiter in double quotes, or pass drop_extra=True to drop surplus columns"
    else:
        cause = "without quoting no text may hold the delimiter; pass drop_extra=True to drop surplus columns"
    wanted = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
    return f"{counted(len(record), 'column')}, but {len(names):,} expected ({wanted}); {cause}"


def _other_delimiter(names: list[str]) -> str:
    for delimiter in "\t;|,":
        if len(names) == 1 and delimiter in names[0]:
            return f" The columns seem to be separated by {delimiter!r}; pass delimiter={delimiter!r}"
    return ""

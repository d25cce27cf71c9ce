"""CSV and TSV by RFC 4180, every value a string, every error with the line it is on."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tfbert.errors import InputError
from tfbert.sources.columns import MAX_CHARACTERS, check_labels, check_texts, plan
from tfbert.sources.decoding import load_text
from tfbert.sources.examples import Examples, counted

_UNQUOTED = "pass quoting=False (--no-quoting)"


class Table(NamedTuple):
    names: list[str]
    place: str  # of the names
    records: Iterable[tuple[int, list[str]]]  # the line on which each begins, and the record


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
    labelled: bool = True,
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
        labelled: whether each row needs a label, where there are labels (default True); False does not look at them.

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
    text, notes = load_text(path, encoding)
    parse = functools.partial(_parsed, path, text, delimiter, header=header, drop_extra=drop_extra)
    if quoting is None and '"' in text:
        quoting, note = meant(path, parse)
        notes += note
    table = parse(bool(quoting))
    fields = planned(table, columns)
    rows = [{field: record[index] for field, index in fields} for _, record in table.records]
    examples = Examples(rows, source=str(path), lines=[line for line, _ in table.records], notes=notes)
    if extra := sum(len(record) > len(table.names) for _, record in table.records):
        examples.notes.append(f"{path}: {counted(extra, 'row')} with more columns than the header, surplus dropped")
    if len(text) > max_characters:
        check_texts(examples, max_characters)
    if labelled:
        check_labels(examples)
    return examples


def planned(table: Table, columns: Mapping[str, str] | None) -> list[tuple[str, int]]:
    """Which column of a table each field is read from (see `plan`)."""
    return plan(table.names, columns, table.place, _other_delimiter(table.names))


def meant(path, parse) -> tuple[bool, list[str]]:
    """Whether the quotes of a file enclose fields, and a note where that is not what CSV wants.

    They do where the file can be read so; not where they would join lines that each have all columns.

    Args:
        path: the file.
        parse: the function from `quoting` to the Table.
    """
    try:
        quoted = sum(1 for _ in parse(True).records)
    except InputError as error:
        quoted, refusal = None, error
    try:
        unquoted = sum(1 for _ in parse(False).records)
    except InputError:
        if quoted is None:
            raise refusal from None
        return True, []
    if quoted == unquoted:
        return True, []
    return False, [f"{path}: read without quoting: its quotes do not pair as CSV wants (quoting=True insists on it)"]


def _parsed(path, text: str, delimiter: str, quoting: bool, **settings) -> Table:
    """The records of a whole text."""
    # A line ends at \n as editors and sed count; a file without any \n is an old one whose lines end at \r.
    lines = io.StringIO(text, newline="\n" if "\n" in text else "")
    found = table(path, lines, delimiter, quoting, longest=len(text), **settings)
    return found._replace(records=list(found.records))


def table(
    path, lines: Iterable[str], delimiter: str, quoting: bool, *, header=None, drop_extra=False, longest: int
) -> Table:
    """The records, at least one, all as wide as the header, of lines that have their ends; read as they are asked for.

    Args:
        path: the file, for messages.
        lines: the lines.
        delimiter: as for `read_csv`, and so are `quoting` (True or False), `header` and `drop_extra`.
        longest: characters after which a record that does not end is one whose quote is not closed.
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(f"delimiter={delimiter!r}: expected one character, such as ',' or '\\t'")
    if isinstance(header, str):
        raise InputError(f"header={header!r}: expected a list of names, such as ['text', 'label']")
    records = _quoted(path, lines, delimiter, longest) if quoting else _unquoted(lines, delimiter)
    first = next(records, None)
    if first is None:
        raise InputError(f"{path}: the file is empty; expected a header line and a row for each example")
    if header is None:
        names, place = first[1], f"{path}:{first[0]}"
    else:
        names, place, records = list(header), str(path), itertools.chain([first], records)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(f"{place}: two columns are named {name!r}; give each its own name")
    return Table(names, place, _even(path, records, names, place, quoting, drop_extra))


def _even(path, records, names: list[str], place: str, quoting: bool, drop_extra: bool):
    line = None
    for line, record in records:
        if len(record) != len(names) and not (drop_extra and len(record) > len(names)):
            raise InputError(f"{path}:{line}: {_ragged(record, names, line, quoting)}")
        yield line, record
    if line is None:
        raise InputError(f"{place}: only a header line ({', '.join(map(repr, names))}) and no rows")


def _quoted(path, lines: Iterable[str], delimiter: str, longest: int) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), min(longest + 1, 2**31 - 1)))
    held: list[str] = []  # the lines of the record that is being read

    def taken():
        size = 0
        for line in lines:
            size = len(line) + (size if held else 0)
            held.append(line)
            if size > longest:
                raise csv.Error("a record without end")
            yield line

    reader, line = csv.reader(taken(), delimiter=delimiter, strict=True), 1
    try:
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1
            held.clear()
    except csv.Error as error:
        quote = _open_quote("".join(held), delimiter)
        if quote is None:
            what = "a carriage return (\\r) outside quotes; put the field in double quotes"
            raise InputError(f"{path}:{reader.line_num}: {what}") from error
        line += sum(end <= quote for end in itertools.accumulate(map(len, held)))
        raise InputError(
            f"{path}:{line}: a double quote opens here and is not closed before a {delimiter!r} or a line end; the "
            f"file seems to be written without quoting; {_UNQUOTED}"
        ) from error


def _unquoted(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        if line := line.removesuffix("\n").removesuffix("\r"):
            yield number, line.split(delimiter)


def _open_quote(text: str, delimiter: str) -> int | None:
    """Where, in the text of a record, a quote opens that is never closed rightly; None for nowhere."""
    after, offset = re.escape(delimiter), 0
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

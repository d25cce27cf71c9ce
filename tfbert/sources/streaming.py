"""Rows as they come, from files and pipes of any size: few are held at a time, and each knows its place."""

from __future__ import annotations

import codecs
import functools
import gzip
import io
import itertools
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, final

from tfbert.errors import InputError
from tfbert.files import told
from tfbert.sources.columns import MAX_CHARACTERS, check_texts, plan
from tfbert.sources.decoding import check_file, codec_name, refuse_other_formats
from tfbert.sources.examples import Cleaning, Examples, counted
from tfbert.sources.json_lines import values
from tfbert.sources.parquet import ParquetRows
from tfbert.sources.reading import WITH_LABELS, chosen_reader, text_files
from tfbert.sources.tables import meant, planned, table
from tfbert.sources.tfds import Split

BLOCK = 2**16  # bytes read at once
LONGEST = 16_000_000  # characters of a line or a record; whatever is longer is no line
STANDARD_INPUT = "standard input"
IDLE = 0.05  # seconds without a byte after which a pipe has nothing more just now


@final
class Stream(Iterator):
    """Rows as they come, plain dicts; `last` is the one that came last as `Examples`, which know its place.

    None among the rows says that the next one may take a while: whoever answers rows answers those it has.

    Args:
        examples: one row each, or None.
        share: the function that says which part of the whole was read so far, 0 to 1; None where nobody knows the whole.
        notes: what reading changes or finds odd, one sentence each; complete when the rows are at their end.

    Example:
        >>> rows = Stream([Examples([{"text": "good"}], source="reviews.csv", lines=[2])])
        >>> next(rows), rows.last.where(0), rows.taken
        ({'text': 'good'}, 'reviews.csv:2', 1)
    """

    def __init__(
        self,
        examples: Iterable[Examples | None],
        share: Callable[[], float] | None = None,
        notes: Sequence[str] = (),
    ):
        self._examples = iter(examples)
        self.last, self.taken, self.share, self.notes = Examples(), 0, share, notes

    def __next__(self) -> dict | None:
        example = next(self._examples)
        if example is None:
            return None
        self.last, self.taken = example, self.taken + 1
        return example[0]


def windows(rows: Iterable, *, first: int, most: int) -> Iterator[list]:
    """Parts of a stream, in order: the first of `first` rows, each next one twice as large, up to `most`.

    A None among the rows ends a part before it is full. Where reading the rows fails, what came before is a part, and then the error
    is raised. No row is read before it is asked for.

    Args:
        rows: the rows; None for a pause.
        first: rows of the first part: a batch.
        most: rows of a part at most: the window.

    Example:
        >>> list(windows([1, 2, 3, None, 4, 5, 6], first=1, most=4))
        [[1], [2, 3], [4, 5, 6]]
    """
    for name, value in (("batch_size", first), ("window", most)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    part, size = [], min(first, most)
    try:
        for row in rows:
            if row is not None:
                part.append(row)
            if part and (row is None or len(part) == size):
                size = min(2 * size, most) if len(part) == size else size
                yield part
                part = []
    except Exception:
        if part:
            yield part
        raise
    if part:
        yield part


def stream(path: str | os.PathLike, *, columns: Mapping[str, str] | None = None, **options) -> Stream:
    """The rows of a file one after the other, as `read` gives them all at once with `labelled=False`.

    A .csv, .tsv, .jsonl or .txt file (.gz too), a .parquet file or a TensorFlow Dataset is read as its rows are asked for. Of a .txt file
    every line is a row, blank ones too. A .tsv file that has quotes is read through once before, to see what they mean, unless `quoting`
    says so. The other kinds, and what is not a plain file, are read whole.

    Args:
        path: as for `read`; "-" is standard input, every line a text, and a None where nothing comes for 0.05 seconds.
        columns: from field to the file's column, such as {"text": "sentence"}; None keeps every name.
        **options: as for `read`.

    Raises:
        InputError: what is wrong, with file:line; once the rows before it were given.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "reviews.jsonl"
        >>> _ = file.write_text('{"text": "good"}\\n{"text": "bad"\\n')
        >>> rows = stream(file)
        >>> next(rows), rows.last.where(0).endswith("reviews.jsonl:1")
        ({'text': 'good'}, True)
        >>> next(rows)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: ...reviews.jsonl:2: not valid JSON (...); expected one JSON object a line
    """
    if path == "-":
        file, notes = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer), []
        lines = _lines(blocks(file), STANDARD_INPUT, options.get("encoding", "utf-8"), notes)
        texts = _texts(lines, options.get("field", "text"))
        rows = (row and Examples([row], source=STANDARD_INPUT, lines=[line]) for line, row in texts)
        return Stream(rows, notes=notes)
    name, reader, suffix, options = chosen_reader(path, options)
    if suffix in _STREAMED and Path(name).is_file():
        file = _File(name, options.pop("encoding", "utf-8"))
        return Stream(_STREAMED[suffix](file, columns, **options), file.share, file.notes)
    if not suffix or (suffix == ".parquet" and Path(name).is_file() and not name.lower().endswith(".gz")):
        found = ParquetRows(name) if suffix else Split(name, **options)
        return Stream(_of_rows(found, columns, notes := []), found.share, notes)
    if suffix in WITH_LABELS:
        options["labelled"] = False
    examples = reader(name, columns=columns, **options)
    rows = Stream((examples.select([i]) for i in range(len(examples))), notes=examples.notes)
    rows.share = lambda: rows.taken / len(examples)
    return rows


def documents(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    field: str = "text",
    *,
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
) -> Stream:
    """The documents of plain text one after the other, as `read_documents` gives them all at once.

    Whether blank lines part the documents of a file is seen by reading it up to the first that does, before.

    Args:
        path, field, encoding, max_characters: as for `read_documents`.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "corpus.txt"
        >>> _ = file.write_text("One.\\nAnd two.\\n\\nThree.\\n")
        >>> list(documents(file))
        [{'text': 'One.\\nAnd two.'}, {'text': 'Three.'}]
    """
    names, given = text_files(path)
    files, notes = [_File(name, encoding) for name in names], []
    source = ", ".join(map(str, given))

    def every():
        for file in files:
            parted, several = _is_parted(file)
            if several and not parted:
                notes.append(f"{file.path}: no blank line parts documents, so each line is one")
            for line, text in _documents(file, parted):
                place = line if len(files) == 1 else f"{file.path}:{line}"
                lines = text.split("\n") if len(text) > (max_characters or len(text)) else []
                for number, part in enumerate(lines, line):  # as `read_documents`, whose limit is that of a line
                    check_texts(Examples([{field: part}], source=file.path, lines=[number]), max_characters)
                yield Examples([{field: text}], source=source, lines=[place])
            notes.extend(file.notes)

    sizes = [os.path.getsize(name) for name in names]
    return Stream(every(), lambda: sum(n * f.share() for n, f in zip(sizes, files)) / max(1, sum(sizes)), notes)


def _of_document(file: _File) -> Iterator[str]:
    """The lines of a file; without any \\n it is an old one, whose lines end at \\r."""
    lines = file.lines()
    for first in lines:
        yield from [first] if first.endswith("\n") else first.split("\r")
        yield from lines


def _is_parted(file: _File) -> tuple[bool, bool]:
    """Whether a blank line stands between two that are not, and whether there are two of these at all."""
    blank = False
    several = 0
    for line in _of_document(file):
        if line.strip():
            if several and blank:
                return True, True
            several += 1
            blank = False
        else:
            blank = True
    return False, several > 1


def _documents(file: _File, parted: bool) -> Iterator[tuple[int, str]]:
    """Each document with the line on which it begins."""
    held: list[str] = []
    begin = 0
    for number, line in enumerate(_of_document(file), 1):
        text = line.removesuffix("\n").removesuffix("\r")
        if held and (not parted or not text.strip()):
            yield begin, "\n".join(held)
            held = []
        if text.strip():
            begin = begin if held else number
            held.append(text)
    if held:
        yield begin, "\n".join(held)


class _File:
    """A file whose lines are read as they are asked for, from its beginning each time."""

    def __init__(self, path: str, encoding: str):
        check_file(path)
        self.path, self.encoding, self.notes = path, encoding, []
        self._read, self._size = 0, max(1, os.path.getsize(path))

    def share(self) -> float:
        return min(1.0, self._read / self._size)

    def lines(self) -> Iterator[str]:
        with told(self.path, "read"), open(self.path, "rb", buffering=0) as raw:
            file = gzip.GzipFile(fileobj=raw) if self.path.lower().endswith(".gz") else raw
            yield from _lines(self._blocks(file, raw), self.path, self.encoding, self.notes)

    def _blocks(self, file, raw) -> Iterator[bytes]:
        try:
            while block := file.read(BLOCK):
                self._read = raw.tell()
                yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(
                f"{self.path}: damaged or cut-off gzip ({error}); download or compress it again"
            ) from error


def blocks(file: BinaryIO) -> Iterator[bytes | None]:
    """What comes through a pipe, as it comes; None, once, where nothing has come for a while."""
    try:
        number = file.fileno()
    except OSError:  # a test's or a notebook's
        number = None
    while True:
        if number is not None and not select.select([number], [], [], IDLE)[0]:
            yield None
        block = file.read(BLOCK)
        if block == b"":
            return
        yield block  # None: a pipe that does not wait has nothing


def _lines(blocks: Iterable[bytes | None], source: str, encoding: str, notes: list[str]) -> Iterator[str | None]:
    """The lines of what comes in blocks, each with its end, without NUL characters and a leading byte-order mark."""
    strict = codec_name(encoding) in ("utf-8", "utf-8-sig")
    decoder = codecs.getincrementaldecoder("utf-8" if strict else encoding)()
    rest, number, nuls, begun = "", 1, 0, False
    for block in itertools.chain(blocks, [b""]):
        if block is None:
            yield None
            continue
        if strict and not begun:
            refuse_other_formats(source, block)
        text, failure = _decoded(decoder, block)
        if not begun:
            text = text.removeprefix("\ufeff") if strict else text
            if text.count("\0") * 10 > len(text):
                raise InputError(f"{source}: looks like a binary file; if it is UTF-16, pass encoding='utf-16-le'")
        begun = begun or bool(text)
        nuls += text.count("\0")
        *whole, rest = (rest + text.replace("\0", "")).split("\n")
        for line in whole:
            yield line + "\n"
            number += 1
        if failure:
            found = f"{failure.object[failure.start]:#04x} is not valid {encoding} ({failure.reason})"
            remedy = "save it as UTF-8, or pass its encoding, for instance encoding='latin-1' (--encoding latin-1)"
            raise InputError(f"{source}:{number} (character {len(rest) + 1}): {found}; {remedy}")
        if len(rest) > LONGEST:
            raise InputError(f"{source}:{number}: a line of more than {LONGEST:,} characters; is this a file of text?")
    if rest:
        yield rest
    if nuls and (note := f"{source}: {counted(nuls, 'NUL character')} removed") not in notes:
        notes.append(note)


def _decoded(decoder, block: bytes) -> tuple[str, UnicodeDecodeError | None]:
    """A block's text; of one that is not valid the text before that, and the error."""
    try:
        return decoder.decode(block, final=not block), None
    except UnicodeDecodeError as error:
        decoder.reset()
        return decoder.decode(error.object[: error.start]), error


def _texts(lines: Iterable[str | None], field: str) -> Iterator[tuple[int, dict | None]]:
    number = 0
    for line in lines:
        number += line is not None
        yield number, None if line is None else {field: line.removesuffix("\n").removesuffix("\r")}


def _of_lines(file: _File, columns, *, field: str = "text", max_characters: int = MAX_CHARACTERS):
    return _renamed(file, _texts(file.lines(), field), columns, max_characters)


def _of_json(file: _File, columns, *, max_characters: int = MAX_CHARACTERS):
    row = None
    for row in _renamed(file, values(file.path, file.lines()), columns, max_characters):
        yield row
    if row is None:
        raise InputError(f"{file.path}: there are no rows in it")


def _of_table(
    file: _File, columns, *, delimiter=",", quoting=True, header=None, drop_extra=False, max_characters=MAX_CHARACTERS
):
    def lines():
        every = file.lines()
        first = next(every, "")
        # Without any \n it is the whole of an old file, whose lines end at \r.
        return itertools.chain([first], every) if first.endswith("\n") else io.StringIO(first, newline="")

    def parse(quoting):
        return table(file.path, lines(), delimiter, quoting, header=header, drop_extra=drop_extra, longest=LONGEST)

    if quoting is None:
        quoting, notes = meant(file.path, parse) if any('"' in line for line in file.lines()) else (False, [])
        file.notes += notes
    found, surplus = parse(quoting), 0
    fields = planned(found, columns)
    for line, record in found.records:
        surplus += len(record) > len(found.names)
        yield _example(file, line, {field: record[index] for field, index in fields}, max_characters)
    if surplus:
        file.notes.append(f"{file.path}: {counted(surplus, 'row')} with more columns than the header, surplus dropped")


def _renamed(file: _File, rows: Iterable[tuple[int, Any]], columns, max_characters: int):
    """Rows that are cleaned and renamed."""
    cleaning, plans = Cleaning(), {}
    for line, row in rows:
        place = f"{file.path}:{line}"
        row = cleaning.row(row, place)
        names = tuple(row)
        if names not in plans:
            plans = {names: plan(names, columns, place)}
        yield _example(file, line, {field: row[names[index]] for field, index in plans[names]}, max_characters)
    file.notes += cleaning.notes(file.path)


def _of_rows(rows: Split | ParquetRows, columns, notes: list[str]) -> Iterator[Examples]:
    cleaning, plans = Cleaning(), {}
    for number, row in enumerate(rows, 1):
        place = f"row {number} of {rows.source}"
        row = cleaning.row(row, place)
        names = tuple(row)
        if names not in plans:
            plans = {names: plan(names, columns, place)}
        yield Examples([{field: row[names[k]] for field, k in plans[names]}], source=rows.source, rows_at=[number])
    notes += [*rows.notes(), *cleaning.notes(rows.source)]


def _example(file: _File, line: int, row: dict, max_characters: int) -> Examples:
    example = Examples([row], source=file.path, lines=[line])
    check_texts(example, max_characters)
    return example


_STREAMED = {
    ".csv": _of_table,
    ".jsonl": _of_json,
    ".tsv": functools.partial(_of_table, delimiter="\t", quoting=None),
    ".txt": _of_lines,
}

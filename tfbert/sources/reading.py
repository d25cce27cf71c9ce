"""`read`: any source by its name; and plain lines of text."""

from __future__ import annotations

import functools
import glob
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfbert.errors import InputError, suggest
from tfbert.sources.columns import MAX_CHARACTERS, checked
from tfbert.sources.conll import read_conll
from tfbert.sources.decoding import check_file, load_text
from tfbert.sources.examples import Examples, counted
from tfbert.sources.json_lines import read_json, read_jsonl
from tfbert.sources.parquet import read_parquet
from tfbert.sources.squad import read_squad
from tfbert.sources.tables import read_csv
from tfbert.sources.tfds import read_tfds


def read_lines(
    path: str | os.PathLike,
    field: str = "text",
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
) -> Examples:
    """Reads plain text: every line that is not blank is an example; blank lines only separate.

    A line loses its line end (\\n or \\r\\n) and nothing else: a carriage return within it stays, unlike in tf.data's
    TextLineDataset, which drops every one.

    Args:
        path: the file; .gz is decompressed.
        field: what the line is called in the example (default "text").
        columns: from field to `field`, as in the other readers; None keeps the name.
        encoding: any that Python knows (default "utf-8").
        max_characters: the longest line allowed (default 1,000,000).

    Raises:
        InputError: what is wrong, with file:line.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "lines.txt"
        >>> _ = place.write_text("one\\n\\ntwo\\n")
        >>> examples = read_lines(place)
        >>> examples, examples.where(1).endswith("lines.txt:3")
        ([{'text': 'one'}, {'text': 'two'}], True)
    """
    text, notes = load_text(path, encoding)
    every = text.split("\n" if "\n" in text else "\r")
    lines = [number for number, line in enumerate(every, 1) if line.strip()]
    rows = [{field: every[number - 1].removesuffix("\r")} for number in lines]
    return checked(rows, str(path), lines, columns=columns, max_characters=max_characters, notes=notes)


def read_documents(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    field: str = "text",
    *,
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
) -> Examples:
    """Reads raw text: the lines up to a blank line are one document, an example. Where there is no blank line, every line is one.

    Args:
        path: the file, also as .gz; a pattern such as "corpus-*.txt" for the files that a corpus is parted into, read in the order of their
            names; or a list of files and patterns, read in its order. A document ends with its file.
        field: what the document is called in the example (default "text"); its lines are joined by line ends.
        encoding: any that Python knows (default "utf-8").
        max_characters: the longest line allowed (default 1,000,000).

    Raises:
        InputError: what is wrong, with file:line; or no file is called so.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "corpus-0.txt"
        >>> _ = place.write_text("One.\\nAnd two.\\n\\nThree.\\n")
        >>> read_documents(place), read_documents(place.with_name("corpus-*.txt")).where(1).endswith("corpus-*.txt:4")
        ([{'text': 'One.\\nAnd two.'}, {'text': 'Three.'}], True)
    """
    parts, given = text_files(path)
    texts: list[list[str]] = []  # of each document its lines
    places, notes = [], []
    for part in parts:
        lines = read_lines(part, field, encoding=encoding, max_characters=max_characters)
        notes += lines.notes
        parted = any(after - before > 1 for before, after in zip(lines.lines, lines.lines[1:]))
        if not parted and len(lines) > 1:
            notes.append(f"{part}: no blank line parts documents, so each line is one")
        for i, (row, line) in enumerate(zip(lines, lines.lines, strict=True)):
            if parted and i and line == lines.lines[i - 1] + 1:
                texts[-1].append(row[field])
            else:
                texts.append([row[field]])
                places.append(line if len(parts) == 1 else f"{part}:{line}")
    source = ", ".join(map(str, given))
    return Examples([{field: "\n".join(text)} for text in texts], source=source, lines=places, notes=notes)


def text_files(path: str | os.PathLike | Sequence[str | os.PathLike]) -> tuple[list[str], list]:
    """The files that a path, a pattern or a list of them stands for, in their order; and the list of what was given."""
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    parts = [part for each in given for part in _files(str(each))]
    if not parts:
        raise InputError("read_documents got an empty list of files; give one at least")
    return parts, given


def _files(path: str) -> list[str]:
    """The files that a pattern fits, by their names; a path that is none is itself."""
    if not glob.has_magic(path) or Path(path).is_file():
        return [path]
    found = sorted(glob.glob(path))
    if not found:
        raise InputError(f"there is no file {path}; check the pattern")
    return found


def read_parallel(
    path: str | os.PathLike,
    path_pair: str | os.PathLike,
    *,
    names: tuple[str, str] = ("text", "text_pair"),
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
) -> Examples:
    """Reads two files of plain text, of which each line of the one is the translation of that line of the other.

    A line that is blank in either file is left out, and counted in the notes.

    Args:
        path: the file of the first texts; .gz is decompressed.
        path_pair: that of the second ones.
        names: the fields that the two become (default ("text", "text_pair"), for translation LM); for `Seq2Seq` ("text", "target").
        encoding: any that Python knows (default "utf-8").
        max_characters: the longest line allowed (default 1,000,000).

    Returns:
        Examples with the two fields.

    Raises:
        InputError: the files have different numbers of lines, or what else is wrong, with file:line.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> _ = (place / "a.en").write_text("A dog.\\nTwo cats.\\n"), (place / "a.de").write_text("Ein Hund.\\nZwei Katzen.\\n")
        >>> read_parallel(place / "a.en", place / "a.de")[1]
        {'text': 'Two cats.', 'text_pair': 'Zwei Katzen.'}
    """
    sides, counts, notes = [], [], []
    for file in (path, path_pair):
        text, own = load_text(file, encoding)
        every = text.split("\n" if "\n" in text else "\r")
        counts.append(len(every) - (every[-1] == ""))
        sides.append([line.removesuffix("\r") for line in every])
        notes += own
    if counts[0] != counts[1]:
        raise InputError(
            f"{path} has {counts[0]:,} lines and {path_pair} has {counts[1]:,}; each line must be the translation of the line of the same "
            "number in the other"
        )
    numbers = [i for i, both in enumerate(zip(*sides)) if all(line.strip() for line in both)]
    if counts[0] > len(numbers):
        notes.append(
            f"{path}: {counted(counts[0] - len(numbers), 'line')} left out that are blank, or whose translations are"
        )
    rows = [{names[0]: sides[0][i], names[1]: sides[1][i]} for i in numbers]
    lines = [i + 1 for i in numbers]
    return checked(rows, str(path), lines, columns=None, max_characters=max_characters, notes=notes)


def _read_document(path: str | os.PathLike, *, columns: Mapping[str, str] | None = None, **options) -> Examples:
    """A .json file: rows, or SQuAD's articles with their paragraphs of questions."""
    rows = read_json(path, columns=columns, **options)
    if all("paragraphs" in row for row in rows):
        return read_squad(path, **{name: value for name, value in options.items() if name in ("encoding", "labelled")})
    return rows


_READERS = {
    ".conll": read_conll,
    ".csv": read_csv,
    ".json": functools.wraps(read_json)(_read_document),
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".tsv": functools.partial(read_csv, delimiter="\t", quoting=None),
    ".txt": read_lines,
}
WITH_LABELS = (".csv", ".json", ".jsonl", ".parquet", ".tsv")  # which may say that there is none
_TFDS = re.compile(r"tfds:(?P<name>((gs|s3):)?[^:]+(:\d+\.\d+\.\d+)?):(?P<split>.+)")


def read(
    path_or_name: str | os.PathLike, *, columns: Mapping[str, str] | None = None, labelled: bool = True, **options
) -> Examples:
    """Reads a file by the suffix of its name, or a TensorFlow Dataset by its name.

    Args:
        path_or_name: a file that ends in .conll, .csv, .tsv, .jsonl, .json, .parquet or .txt, or in one of these and .gz; or
            "tfds:NAME:SPLIT", such as "tfds:glue/sst2:train", or "tfds:FOLDER:SPLIT" of a folder with a dataset_info.json.
        columns: from field to the file's column, such as {"text": "sentence", "label": "category"}; None keeps every
            name. A .json file in SQuAD's form is read by read_squad.
        labelled: whether each row needs a label, where there are labels (default True); False, for texts alone, does not look at them.
        **options: what the reader of this kind takes, such as quoting=False for read_csv. A .tsv file is read by
            read_csv with quoting=None.

    Raises:
        InputError: an unknown suffix or option, or what is wrong with the file, with file:line.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "train.tsv"
        >>> _ = place.write_text('sentence\\tlabel\\n"Fine," he lied\\tneg\\n')
        >>> read(place, columns={"text": "sentence"})
        [{'text': '"Fine," he lied', 'label': 'neg'}]
    """
    name, reader, suffix, options = chosen_reader(path_or_name, options)
    if suffix in WITH_LABELS:
        options["labelled"] = labelled
    return reader(name, columns=columns, **options)


def chosen_reader(path_or_name, options: Mapping[str, Any]) -> tuple[str, Callable, str, dict[str, Any]]:
    """What reads a file or data set: its name, the reader, the suffix it goes by ("" for TFDS), and the reader's options, checked."""
    if not isinstance(path_or_name, (str, os.PathLike)):
        kind = type(path_or_name).__name__
        raise InputError(f"read takes a path or 'tfds:NAME:SPLIT', got {kind}; rows in memory need no reading")
    name = os.fspath(path_or_name)
    if name.startswith("tfds:"):
        match = _TFDS.fullmatch(name)
        if match is None:
            raise InputError(f"{name!r}: expected tfds:NAME:SPLIT, such as tfds:glue/sst2:train")
        reader, suffix, kind = read_tfds, "", "a TensorFlow Dataset"
        name, options = match["name"], {"split": match["split"], **options}
    else:
        suffix = Path(name.lower().removesuffix(".gz")).suffix
        if suffix not in _READERS:
            check_file(name)
            known = ", ".join(_READERS)
            raise InputError(f"{name}: the suffix {suffix!r} is not known; known are {known}, each also with .gz")
        reader, kind = _READERS[suffix], f"a {suffix} file"
    known = [option for option in inspect.signature(reader).parameters if option not in ("path", "name", "columns")]
    for option in options:
        if option not in known:
            hint = f"its options are {', '.join(known)}.{suggest(option, known)}"
            raise InputError(f"{name}: {kind} has no option {option!r}; {hint}")
    return name, reader, suffix, dict(options)

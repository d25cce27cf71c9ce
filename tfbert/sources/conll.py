"""Sentences of tagged words, a word a line, in columns: the CoNLL form."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tfbert.errors import InputError
from tfbert.sources.columns import MAX_CHARACTERS, checked
from tfbert.sources.decoding import load_text
from tfbert.sources.examples import Examples


def read_conll(
    path: str | os.PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    word_column: int = 0,
    tag_column: int | None = -1,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    max_characters: int = MAX_CHARACTERS,
) -> Examples:
    """Reads sentences: a word a line with its tag in another column, blank lines between sentences.

    Lines that begin with -DOCSTART- part documents and are no words; lines that begin with "# " and have no tab are comments. Every
    other line of a file has as many columns as the first one.

    Args:
        path: the file; .gz is decompressed.
        columns: from field to "words" or "tags", as in the other readers; None keeps the names.
        word_column: which column is the word, from 0; negative numbers count from the end (default 0).
        tag_column: which column is the tag (default -1, the last); None: there are none, for prediction.
        delimiter: what parts the columns; None means a tab where the first line has one, else any white space (default).
        encoding: any that Python knows (default "utf-8"; the CoNLL-2002 and -2003 files are "latin-1").
        max_characters: the longest sentence allowed (default 1,000,000).

    Returns:
        Examples of {"words": list of str, "tags": list of str}; the place of each is the line of its first word.

    Raises:
        InputError: another number of columns, an empty word or tag, with file:line.

    Example:
        >>> import pathlib, tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "train.conll"
        >>> _ = place.write_text("Ada\\tB-PER\\nwrote\\tO\\n\\nRome\\tB-LOC\\n")
        >>> examples = read_conll(place)
        >>> examples[0], examples.where(1).endswith("train.conll:4")
        ({'words': ['Ada', 'wrote'], 'tags': ['B-PER', 'O']}, True)
    """
    text, notes = load_text(path, encoding)
    rows, lines, words, tags, width, size = [], [], [], [], None, 0
    every = text.split("\n" if "\n" in text else "\r")
    for number, line in enumerate([*every, ""], 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.startswith("-DOCSTART-"):
            if words:
                rows.append({"words": words} | ({} if tag_column is None else {"tags": tags}))
                words, tags, size = [], [], 0
            continue
        if line.startswith("# ") and "\t" not in line and not words:
            continue
        place = f"{path}:{number}"
        if delimiter is None:
            delimiter = "\t" if "\t" in line else " "
        cells = line.split() if delimiter == " " else line.split(delimiter)
        width = width or _checked_width(cells, word_column, tag_column, place)
        if len(cells) != width:
            raise InputError(f"{place}: {len(cells)} columns, the first line has {width}; every word needs all of them")
        if not words:
            lines.append(number)
        words.append(_cell(cells, word_column, "word", place))
        if tag_column is not None:
            tags.append(_cell(cells, tag_column, "tag", place))
        size += len(words[-1])
        if size > max_characters:
            raise InputError(
                f"{path}:{lines[-1]}: a sentence of more than {max_characters:,} characters; are the blank lines missing? "
                "Put one after each sentence or raise max_characters"
            )
    return checked(rows, str(path), lines, columns=columns, notes=notes)


def _checked_width(cells: list[str], word_column: int, tag_column: int | None, place: str) -> int:
    width = len(cells)
    for name, column in (("word_column", word_column), ("tag_column", tag_column)):
        if column is not None and not -width <= column < width:
            raise InputError(f"{place}: {name} is {column}, but the line has {width} columns, 0 to {width - 1}")
    if tag_column is not None and word_column % width == tag_column % width:
        raise InputError(
            f"{place}: the line has the word but no tag ({width} columns); give each word its tag, or read it with tag_column=None"
        )
    return width


def _cell(cells: list[str], column: int, what: str, place: str) -> str:
    value = cells[column].strip()
    if not value:
        raise InputError(f"{place}: the {what} is empty; every line needs a word and its tag, or nothing at all")
    return value

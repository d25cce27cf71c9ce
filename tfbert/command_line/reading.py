"""The options by which a command reads its data files, and the reading itself."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tfbert.command_line.arguments import Parser, names, whole
from tfbert.errors import InputError
from tfbert.sources import Examples, Stream, read, read_documents, stream
from tfbert.tasks import TASKS, Task, by_name

COLUMNS = (
    "text",
    "text_pair",
    "negative",
    "target",
    "label",
    "weight",
    "words",
    "tags",
    "spans",
    "question",
    "context",
    "answers",
)
TEXTS = ("text", "text_pair", "words", "question", "context")  # the columns of a file without labels
OPTIONS = ("delimiter", "quoting", "encoding", "header", "word_column", "tag_column")
FORMATS = ".conll .csv .tsv .jsonl .json .parquet .txt (.gz too), or tfds:NAME:SPLIT"


def add_options(parser: argparse.ArgumentParser, columns: tuple[str, ...] = COLUMNS) -> None:
    """Adds the options that say which column is which, and how a file is written."""
    group = parser.add_argument_group("columns", "where a file names them otherwise than the task does")
    for field in columns:
        group.add_argument(
            f"--{field.replace('_', '-')}",
            metavar="COLUMN",
            help=f"the column that holds the {field.replace('_', ' ')}",
        )
    group = parser.add_argument_group("file format")
    group.add_argument(
        "--delimiter", type=_delimiter, metavar="C", help="between the columns of a .csv (default ','; 'tab' for a tab)"
    )
    group.add_argument(
        "--quoting",
        action=argparse.BooleanOptionalAction,
        help="double quotes enclose a field, or are plain characters",
    )
    group.add_argument("--encoding", metavar="NAME", help="the encoding of text files (default utf-8)")
    group.add_argument(
        "--header", type=names, metavar="A,B,..", help="the columns' names, for a file without a header line"
    )
    group.add_argument(
        "--word-column", type=whole, metavar="N", help="of a .conll: which column is the word (default 0)"
    )
    group.add_argument(
        "--tag-column", type=whole, metavar="N", help="of a .conll: which column is the tag (default -1, the last)"
    )


def read_file(
    path: str,
    arguments: argparse.Namespace,
    columns: tuple[str, ...] = COLUMNS,
    *,
    documents: bool = False,
    labelled: bool = True,
) -> Examples:
    """Reads one data file as the options say, which rename `columns`; what the reader changed or found odd goes to stderr.

    With `documents`, plain text is read as documents, which blank lines part. Without `labelled` labels are not looked at, and of plain
    text no column has another name.
    """
    if documents and of_lines(path):
        examples = read_documents(path, **({"encoding": arguments.encoding} if arguments.encoding else {}))
    else:
        columns = () if of_lines(path) and not labelled else columns
        examples = read(path, **options(arguments, columns), labelled=labelled)
    tell(examples.notes)
    return examples


def stream_texts(path: str, arguments: argparse.Namespace, fields: tuple[str, ...], field: Callable) -> Stream:
    """The text fields of each row as it is read (one text or a list of them each), and nothing else.

    `field` gives the value of a field of a row, as `Task.input` does.
    """
    further = {"field": fields[0], "max_characters": None} if of_lines(path) else {}
    rows = stream(path, **options(arguments), **further)
    return Stream((row and _texts(rows.last, fields, field, arguments) for row in rows), rows.share, rows.notes)


def of_lines(path: str) -> bool:
    """Whether every line of a file is a text."""
    return path == "-" or path.lower().removesuffix(".gz").endswith(".txt")


def tell(notes: Iterable[str]) -> None:
    """Writes a reader's notes to stderr."""
    for note in notes:
        print(f"tfbert: note: {note}", file=sys.stderr)


def options(arguments: argparse.Namespace, columns: tuple[str, ...] = COLUMNS) -> dict[str, Any]:
    """What a reader is given: how the file is written, and as `columns` which column is which."""
    columns = {field: getattr(arguments, field, None) for field in columns}
    given = {name: getattr(arguments, name) for name in OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    return given | {"columns": {field: column for field, column in columns.items() if column is not None} or None}


def _texts(example: Examples, fields: tuple[str, ...], field: Callable, arguments: argparse.Namespace) -> Examples:
    """The text fields of a row; one that lacks a text is an InputError, which names the option that could help."""
    texts = {}
    for name in fields:
        try:
            texts[name] = field(example, 0, name)
        except InputError as error:
            option = f" (--{name.replace('_', '-')} names the column)" if hasattr(arguments, name) else ""
            raise InputError(f"{error}{option}") from error
    return Examples([texts], source=example.source, lines=example.lines, rows_at=example.rows_at)


def _delimiter(text: str) -> str:
    return {"tab": "\t", "\\t": "\t"}.get(text, text)


def task_and_parser(argv: Sequence[str], command: str, usage: str, about: str) -> tuple[type[Task], Parser]:
    """The task, which comes first since the other options depend on it, and the parser of the words behind it.

    Args:
        argv: the words after the command.
        command: such as "fine-tune".
        usage: with TASK in the task's place.
        about: what the command does, for the help of the command alone.
    """
    if not argv or argv[0].startswith("-"):
        program = f"tfbert {command}"
        about = f"{about} `{program} TASK --help` lists the options of a task."
        parser = Parser(prog=program, usage=usage, description=about)
        group = parser.add_argument_group("tasks")
        for name, task in TASKS.items():
            group.add_argument(name, nargs="?", help=inspect.getdoc(task).splitlines()[0])
        if "-h" in argv or "--help" in argv:
            parser.parse(["--help"])
        parser.error(f"the task comes first: {program} TASK --train FILE ...; the tasks are {', '.join(TASKS)}")
    task = by_name(argv[0])
    return task, Parser(
        prog=f"tfbert {command} {task.name}",
        usage=usage.replace("TASK", task.name),
        description=f"{inspect.getdoc(task).splitlines()[0]} Files: {FORMATS}.",
    )

"""tfbert predict DIR [TEXT ...] [--input FILE|-]: one answer a line, in the order of the texts."""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tfbert
from tfbert.command_line import reading
from tfbert.command_line.arguments import Parser
from tfbert.errors import InputError
from tfbert.serving.layout import versions
from tfbert.sources.decoding import load_text

NEEDS_TENSORFLOW = True
ROWS = 256  # are read, answered and printed at once


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert predict`."""
    parser = Parser(
        prog="tfbert predict",
        usage="tfbert predict saved_models/NAME [TEXT ...] [--input FILE|-]",
        description="Answers texts, one JSON object a line, in their order: through the newest SavedModel in the folder, or through the "
        "checkpoint where there is none.",
    )
    parser.add_argument("directory", metavar="saved_models/NAME", help="a folder that fine-tune or export wrote")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="put texts with spaces in quotes")
    parser.add_argument(
        "--input",
        metavar="FILE|-",
        help=f"- (standard input) or .txt: every line is a text, blank ones too; or {reading.FORMATS}",
    )
    reading.add_options(parser, columns=("text", "text_pair", "question", "context"))
    values = parser.parse(argv)
    if values.texts and values.input is not None:
        raise InputError("texts on the command line and --input are both given; use one of them")
    if not values.texts and values.input is None:
        raise InputError(
            'there is no text to answer; tfbert predict saved_models/NAME "a text", or --input FILE, or --input -'
        )
    return values


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Answers, and emits one object per text."""
    fields, answer = _model(Path(arguments.directory))
    rows = _rows(arguments, fields)
    while part := list(itertools.islice(rows, ROWS)):
        for result in answer(part):
            emit(result)


def _model(directory: Path) -> tuple[tuple[str, ...], Callable[[list], list[dict[str, Any]]]]:
    """The names of the texts that the model takes, and the function from rows of them to answers."""
    if versions(directory) or (directory / "saved_model.pb").is_file():
        predictor = tfbert.Predictor(directory)
        return predictor.inputs, predictor
    tuned = tfbert.load(directory)
    return tuned.task.inputs, functools.partial(tfbert.predict, tuned.task, tuned.model, tuned.tokenizer)


def _rows(arguments: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[dict]:
    if arguments.input is not None and not _lines_of_text(arguments.input):
        return iter(reading.texts(reading.read_file(arguments.input, arguments), fields))
    if len(fields) > 1:
        raise InputError(f"this model takes {' and '.join(fields)}; give them as columns of a file: --input pairs.csv")
    encoding = arguments.encoding or "utf-8"
    if arguments.input is None:
        texts: Iterable[str] = (
            text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in arguments.texts
        )
    elif arguments.input == "-":
        texts = _standard_input(encoding)
    else:
        texts = _lines(arguments.input, encoding)
    return ({fields[0]: text} for text in texts)


def _lines_of_text(path: str) -> bool:
    return path == "-" or path.lower().removesuffix(".gz").endswith(".txt")


def _lines(path: str, encoding: str) -> list[str]:
    """Every line of a file, blank ones too: the n-th answer belongs to the n-th line."""
    text, notes = load_text(path, encoding)
    for note in notes:
        print(f"tfbert: note: {note}", file=sys.stderr)
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _standard_input(encoding: str) -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode(encoding).removesuffix("\n").removesuffix("\r").replace("\0", "")
        except (UnicodeDecodeError, LookupError) as error:
            raise InputError(
                f"standard input, line {number}: {error}; pass the encoding, for instance --encoding latin-1"
            ) from error

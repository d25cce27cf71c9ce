"""tfbert predict DIR [TEXT ...] [--input FILE|-]: one answer a line, in the order of the texts, as they come."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tfbert
from tfbert.command_line import reading
from tfbert.command_line.arguments import Parser
from tfbert.errors import InputError
from tfbert.serving.layout import INFORMATION, versions
from tfbert.sources import Examples, Stream
from tfbert.sources.examples import counted
from tfbert.tasks import task_from
from tfbert.tasks.fields import text

NEEDS_TENSORFLOW = True
EVERY = 5  # seconds between two lines of progress


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
        help=f"- (standard input, answered as it comes) or .txt: every line is a text, blank ones too; or {reading.FORMATS}",
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
    fields, field, answer = _model(Path(arguments.directory))
    rows = _rows(arguments, fields, field)
    progress = Progress(rows)
    for result in answer(rows):
        emit(result)
        progress.answered()
    reading.tell(rows.notes)
    progress.end()


def _model(directory: Path) -> tuple[tuple[str, ...], Callable, Callable[[Stream], Iterator[dict[str, Any]]]]:
    """The names of the texts that the model takes, the function that gives one of them of a row, and that from such rows to answers."""
    if versions(directory) or (directory / "saved_model.pb").is_file():
        predictor = tfbert.Predictor(directory)
        known = predictor.information.get("task")
        task = task_from(known, str(predictor.directory / INFORMATION)) if known else None
        return predictor.inputs, task.input if task else text, predictor.stream
    tuned = tfbert.load(directory)
    answer = functools.partial(tfbert.predict_stream, tuned.task, tuned.model, tuned.tokenizer)
    return tuned.task.inputs, tuned.task.input, answer


def _rows(arguments: argparse.Namespace, fields: tuple[str, ...], field: Callable) -> Stream:
    path = arguments.input
    if len(fields) > 1 and (path is None or reading.of_lines(path)):
        raise InputError(f"this model takes {' and '.join(fields)}; give them as columns of a file: --input pairs.csv")
    if path is not None:
        return reading.stream_texts(path, arguments, fields, field)
    texts = [text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in arguments.texts]
    return Stream(Examples([{fields[0]: text}], source="the command line") for text in texts)


class Progress:
    """Says on stderr, every few seconds, how many rows are answered, how fast, and how long the rest will take where that is known.

    Args:
        rows: what is answered.
        clock: a function that gives seconds.
    """

    def __init__(self, rows: Stream, clock: Callable[[], float] = time.monotonic):
        self._rows, self._clock, self._count = rows, clock, 0
        self._begin = self._told = clock()

    def answered(self) -> None:
        self._count += 1
        if self._clock() - self._told >= EVERY:
            self._tell()

    def end(self) -> None:
        """Says the whole, if anything was said before."""
        if self._told > self._begin:
            self._tell()

    def _tell(self) -> None:
        self._told = self._clock()
        rate = self._count / (self._told - self._begin)
        left, share = "", self._rows.share() if self._rows.share else 0.0
        if share:
            seconds = round(max(0.0, self._rows.taken / share - self._count) / rate)
            left = f", {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"
        print(f"tfbert: {counted(self._count, 'row')}, {rate:,.1f} rows/s{left}", file=sys.stderr)

"""tfbert export DIR: a new version of the SavedModel beside the others."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import tfbert
from tfbert.command_line import reading
from tfbert.command_line.arguments import Parser, add_settings, given
from tfbert.files import read_json
from tfbert.serving.layout import INFORMATION

NEEDS_TENSORFLOW = True
# --target is the server's release here.
COLUMNS = tuple(name for name in reading.COLUMNS if name != "target")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert export`; the options are those of `tfbert.export`."""
    parser = Parser(prog="tfbert export", description="Writes a SavedModel that takes strings and returns answers.")
    parser.add_argument(
        "directory", metavar="saved_models/NAME", help="a folder that fine-tune wrote; the new version goes there"
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="labelled examples, on which model and export are scored; a precision lower than float32 needs them: "
        + reading.FORMATS,
    )
    settings = add_settings(parser, tfbert.export)
    reading.add_options(parser, COLUMNS)
    values = parser.parse(argv)
    values.settings = given(values, settings)
    return values


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Exports, and emits {"export": path}; with --data {"export": path, "scores": {"model": {...}, "export": {...}}}."""
    settings = dict(arguments.settings)
    tuned = tfbert.load(arguments.directory)
    if arguments.data is not None:
        settings["data"] = reading.read_file(arguments.data, arguments, COLUMNS, documents=tuned.task.documents)
    place = tfbert.export(tuned.task, tuned.model, tuned.tokenizer, arguments.directory, **settings)
    scores = read_json(place / INFORMATION).get("scores")
    emit({"export": place} | ({"scores": scores} if scores else {}))

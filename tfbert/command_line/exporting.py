"""tfbert export DIR: a new version of the SavedModel beside the others."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import tfbert
from tfbert.command_line.arguments import Parser, add_settings, given

NEEDS_TENSORFLOW = True


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert export`; the options are those of `tfbert.export`."""
    parser = Parser(prog="tfbert export", description="Writes a SavedModel that takes strings and returns answers.")
    parser.add_argument(
        "directory", metavar="saved_models/NAME", help="a folder that fine-tune wrote; the new version goes there"
    )
    settings = add_settings(parser, tfbert.export)
    values = parser.parse(argv)
    values.settings = given(values, settings)
    return values


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Exports, and emits {"export": path}."""
    tuned = tfbert.load(arguments.directory)
    emit({"export": tfbert.export(tuned.task, tuned.model, tuned.tokenizer, arguments.directory, **arguments.settings)})

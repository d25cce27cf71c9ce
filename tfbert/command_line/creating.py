"""tfbert create FOLDER --text FILE: a tokenizer learnt from text, and random weights, as a checkpoint to pretrain from nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from tfbert import models
from tfbert.command_line.arguments import Parser, add_settings, given

NEEDS_TENSORFLOW = True


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert create`."""
    parser = Parser(
        prog="tfbert create",
        usage="tfbert create FOLDER --text FILE [options]",
        description="Learns a tokenizer from text and draws random weights: a checkpoint that `tfbert fine-tune masked-lm --checkpoint "
        "FOLDER` pretrains.",
    )
    parser.add_argument("directory", metavar="FOLDER", help="the folder to write")
    text = "plain text, a document up to each blank line; or a pattern such as 'corpus-*.txt'"
    parser.add_argument("--text", required=True, metavar="FILE", help=text)
    names = add_settings(parser, models.create_checkpoint)
    values = parser.parse(argv)
    values.settings = given(values, names)
    return values


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Creates the folder, and emits {"output", ...} with what `tfbert inspect` says of it."""
    folder = models.create_checkpoint(arguments.directory, arguments.text, **arguments.settings)
    about = models.describe(folder)
    del about["source"]
    emit({"output": folder, **about})

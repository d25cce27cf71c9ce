"""tfbert evaluate DIR --data FILE: the scores of a fine-tuned model."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import tfbert
from tfbert.command_line import reading
from tfbert.command_line.arguments import Parser, add_settings, given
from tfbert.evaluation import Inference

NEEDS_TENSORFLOW = True


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert evaluate`."""
    parser = Parser(prog="tfbert evaluate", description="Scores a fine-tuned model on a labelled file.")
    parser.add_argument("directory", metavar="saved_models/NAME", help="a folder that fine-tune wrote")
    parser.add_argument("--data", required=True, metavar="FILE", help=f"labelled examples: {reading.FORMATS}")
    settings = add_settings(parser, tfbert.evaluate)
    reading.add_options(parser)
    values = parser.parse(argv)
    values.settings = given(values, settings)
    return values


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Scores, and emits {"metrics": {...}, "by_label": {...}}; with --details the rest of the analysis too, and a line for each example."""
    tuned = tfbert.load(arguments.directory)
    examples = reading.read_file(arguments.data, arguments, documents=tuned.task.documents)
    task, settings = tuned.task, dict(arguments.settings)
    if settings.pop("details", False):
        found = tfbert.evaluate(task, tuned.model, tuned.tokenizer, examples, details=True, **settings)
        emit({name: value for name, value in found.items() if name not in ("examples", "top_losses")})
        for example in found["examples"]:
            emit(example)
        return
    task.check(examples)
    inferred = Inference(task, tuned.tokenizer, examples, **settings)(tuned.model)
    emit({"metrics": task.score(examples, inferred), "by_label": task.score_by_label(examples, inferred)})

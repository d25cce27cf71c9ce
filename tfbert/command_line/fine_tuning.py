"""tfbert fine-tune TASK: labelled files in, one folder with checkpoint, scores and SavedModel out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import tfbert
from tfbert.command_line import reading
from tfbert.command_line.arguments import add_fields, add_settings, given
from tfbert.prepared import is_prepared
from tfbert.serving.layout import versions
from tfbert.workers import Workers

NEEDS_TENSORFLOW = True
USAGE = "tfbert fine-tune TASK --train FILE [--validation FILE] [--test FILE] --output saved_models/NAME [options]"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert fine-tune`; the task comes first, since the other options depend on it."""
    task, parser = reading.task_and_parser(argv, "fine-tune", USAGE, "Fine-tunes a checkpoint.")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--train", required=True, metavar="FILE", help="examples to learn from, or a folder that `tfbert prepare` wrote"
    )
    data.add_argument(
        "--validation", metavar="FILE", help="examples to choose the best epoch by (default: a tenth of --train)"
    )
    data.add_argument("--test", metavar="FILE", help="examples to score at the very end")
    data.add_argument("--unlabelled", metavar="FILE", help="texts to learn from the answers of --teacher alone")
    adapt = "text without labels, a .txt file say, on which the encoder first learns as a masked LM; train: the texts of --train"
    data.add_argument("--adapt", metavar="FILE|train", help=adapt)
    reading.add_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--output", required=True, metavar="FOLDER", help="the folder to write, saved_models/NAME")
    checkpoint = (
        "where to start from: a folder, a hub name, or all-MiniLM-L6-v2 (the default), which comes as a package"
    )
    run.add_argument("--checkpoint", default="all-MiniLM-L6-v2", metavar="NAME_OR_FOLDER", help=checkpoint)
    settings = add_settings(run, tfbert.fine_tune)
    fields = add_fields(parser.add_argument_group("task"), task)
    values = parser.parse(argv[1:])
    values.task = task(**given(values, fields))
    values.settings = given(values, settings)
    return values


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Fine-tunes, and emits {"output", "metrics", "export", "report", ...}."""
    workers = Workers(arguments.settings.get("strategy", "auto"))  # who meet before anything computes
    with workers.joined(), workers.agreeing():
        train, validation, test = (
            None if path is None else _part(path, arguments)
            for path in (arguments.train, arguments.validation, arguments.test)
        )
        unlabelled, adapt = arguments.unlabelled, arguments.adapt
        texts = {"columns": reading.TEXTS, "labelled": False}
        if unlabelled is not None:
            unlabelled = reading.read_file(unlabelled, arguments, **texts)
        if adapt not in (None, "train"):
            adapt = reading.read_file(adapt, arguments, **texts, documents=True)
    tuned = tfbert.fine_tune(
        arguments.task,
        arguments.checkpoint,
        train,
        validation,
        test=test,
        unlabelled=unlabelled,
        adapt=adapt,
        directory=arguments.output,
        **arguments.settings,
    )
    exports, report = versions(tuned.directory), tuned.directory / "report.html"
    measured = (
        "best_epoch train_seconds tokens_per_second padding_share peak_memory_bytes parameters trainable_parameters"
    ).split()
    emit(
        {
            "output": tuned.directory,
            "metrics": tuned.metrics["metrics"],
            "export": exports[max(exports)] if exports else None,
            "report": report if report.is_file() else None,
            **{name: tuned.metrics[name] for name in (*measured, "seeds", "adapted") if name in tuned.metrics},
        }
    )


def _part(path: str, arguments: argparse.Namespace):
    """Examples of a file, or the folder that they were prepared to."""
    if is_prepared(path):
        return tfbert.Prepared(path)
    return reading.read_file(path, arguments, documents=arguments.task.documents)

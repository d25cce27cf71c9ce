"""tfbert prepare TASK: a labelled file of any size in, a folder of tokenized shards out, from which fine-tune streams."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import tfbert
from tfbert.command_line import reading
from tfbert.command_line.arguments import add_fields, add_settings, given

NEEDS_TENSORFLOW = True
USAGE = "tfbert prepare TASK --train FILE --output FOLDER [--processes N] [options]"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert prepare`; the task comes first, since the other options depend on it."""
    task, parser = reading.task_and_parser(
        argv, "prepare", USAGE, "Tokenizes data once, for training that streams them."
    )
    data = parser.add_argument_group("data")
    data.add_argument("--train", required=True, metavar="FILE", help="the examples")
    reading.add_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--output", required=True, metavar="FOLDER", help="the folder to write")
    checkpoint = (
        "whose tokenizer it is for: a folder, a hub name, or all-MiniLM-L6-v2 (the default), which comes as a package"
    )
    run.add_argument("--checkpoint", default="all-MiniLM-L6-v2", metavar="NAME_OR_FOLDER", help=checkpoint)
    settings = add_settings(run, tfbert.prepare)
    fields = add_fields(parser.add_argument_group("task"), task)
    values = parser.parse(argv[1:])
    values.task = task(**given(values, fields))
    values.settings = given(values, settings)
    return values


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Prepares, and emits {"output", "examples", "records", "tokens", "shards", "bytes", "labels", ...}."""
    options = reading.options(arguments)
    if arguments.task.documents and reading.of_lines(arguments.train):
        options = {name: value for name, value in options.items() if name == "encoding"}
    prepared = tfbert.prepare(
        arguments.task, arguments.checkpoint, arguments.train, arguments.output, **arguments.settings, **options
    )
    manifest, task = prepared.manifest, prepared.task
    counts = manifest.counts
    emit(
        {
            "output": prepared.folder,
            **{name: getattr(counts, name) for name in ("examples", "records", "rows", "tokens")},
            "shards": len(manifest.shards),
            "bytes": sum(shard.bytes for shard in manifest.shards),
            "sha256": manifest.digest(),
            **({"labels": task.labels} if hasattr(task, "labels") else {}),
        }
    )

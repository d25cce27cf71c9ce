"""The folder of a fine-tuned model, `saved_models/NAME`: what is in it, how it is written, and how it is read back."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

from tfbert import files, models, serving, tokenization
from tfbert.errors import InputError, suggest
from tfbert.tasks import Task, read_task


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model with all that belongs to it.

    Args:
        task: the task with every field filled.
        model: the Keras model, with the weights of the best epoch.
        tokenizer: the tokenizer it was trained with.
        history: one dict per scoring: epoch, loss, learning_rate, seconds, val_ and the name of each score.
        metrics: what metrics.json holds.
        directory: the folder.
        adapter: with `lora`, what it learned, which is also in the folder's `adapter`; else None.
    """

    task: Task
    model: Any
    tokenizer: Any
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    directory: Path
    adapter: models.Adapter | None = None


def write(tuned: FineTuned, export: bool) -> None:
    """Writes the folder, which appears when all in it is complete."""
    with files.new_directory(tuned.directory, overwrite=True) as folder:
        models.save(tuned.model, folder / "checkpoint", tuned.tokenizer)
        if tuned.adapter is not None:
            (folder / "adapter").mkdir()
            tuned.adapter.save(folder / "adapter")
        files.write_json(folder / "task.json", tuned.task.to_json())
        files.write_json(folder / "metrics.json", tuned.metrics)
        files.write_text(folder / "history.csv", _table(tuned.history))
        if export:
            version = _next_version(tuned.directory)
            serving.export(tuned.task, tuned.model, tuned.tokenizer, folder, version=version)


def load(directory) -> FineTuned:
    """Reads a folder that `fine_tune` wrote: its task, model, tokenizer, history and metrics.

    Args:
        directory: `saved_models/NAME`.

    Raises:
        InputError: the folder is not one that `fine_tune` wrote, or a file in it is damaged.
    """
    directory = Path(directory)
    if not (directory / "task.json").is_file():
        near = [path.parent.name for path in directory.parent.glob("*/task.json")] if directory.parent.is_dir() else []
        raise InputError(
            f"{directory} is not a folder that fine-tune wrote: it has no task.json.{suggest(directory.name, near)}"
        )
    task = read_task(directory / "task.json")
    return FineTuned(
        task,
        task.build(directory / "checkpoint"),
        tokenization.load_tokenizer(directory / "checkpoint"),
        _read_history(directory / "history.csv"),
        files.read_json(directory / "metrics.json"),
        directory,
        models.read_adapter(directory / "adapter") if (directory / "adapter").is_dir() else None,
    )


def _next_version(directory: Path) -> int:
    versions = [int(path.name) for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
    return max(versions, default=0) + 1


def _read_history(path: Path) -> list[dict[str, float]]:
    with files.told(path, "read"):
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8", errors="replace"), newline="")))
    history = []
    for line, row in enumerate(rows, 2):
        try:
            history.append({name: float(value) for name, value in row.items()})
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}:{line}: {error}; the file is damaged, copy it again") from error
    return history


def _table(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()

"""One call from labelled examples to a folder with checkpoint, scores and a SavedModel: fine_tune, and load, which reads it back."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

from tfbert import analysis, devices, evaluation, files, metrics, models, plots, run, serving, tokenization
from tfbert.errors import InputError, suggest
from tfbert.report import html
from tfbert.sources import Examples, from_iterable, split
from tfbert.tasks import Task, read_task


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model with all that belongs to it.

    Args:
        task: the task with every field filled.
        model: the Keras model, with the weights of the best epoch.
        tokenizer: the tokenizer it was trained with.
        history: one dict per epoch: epoch, loss, learning_rate, seconds, val_ and the name of each score.
        metrics: what metrics.json holds.
        directory: the folder.
    """

    task: Task
    model: Any
    tokenizer: Any
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    directory: Path


def fine_tune(
    task: Task,
    checkpoint,
    train,
    validation=None,
    *,
    directory,
    test=None,
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 5e-5,
    schedule: str = "warmup-linear",
    warmup_fraction: float = 0.1,
    weight_decay: float = 0.01,
    clip_norm: float = 1.0,
    layer_decay: float = 1.0,
    freeze: str | None = None,
    accumulate: int = 1,
    ema: float = 0.0,
    fgm: float = 0.0,
    r_drop: float = 0.0,
    patience: int | None = None,
    monitor: str | None = None,
    precision: str = "auto",
    strategy: str = "auto",
    seed: int = 0,
    new_head: bool = False,
    encoder: str = "lean",
    allow_missing_labels: bool = False,
    overwrite: bool = False,
    export: bool = True,
    report: bool | None = None,
) -> FineTuned:
    """Fine-tunes a checkpoint on labelled examples and writes checkpoint, scores and export into one new folder.

    Each epoch ends with a validation; the weights of the epoch with the best score are kept. The folder appears when everything in
    it is complete and has been tested, and only a report comes after; a run that fails or is killed before leaves nothing.

    Args:
        task: such as `SequenceClassification()`; fields left open are filled from the training data.
        checkpoint: a folder, a name on the Hugging Face hub, or "all-MiniLM-L6-v2" for the packaged one.
        train: examples to learn from: a reader's result, a list or any iterable of dicts.
        validation: examples to choose the best epoch by; None holds out a tenth of `train`: of each label, or whole contexts
            for questions.
        directory: the folder to write, `saved_models/NAME`.
        test: examples to score at the very end; None scores the validation examples only.
        epochs: passes over the training examples (default 3).
        batch_size: rows in a batch (default 32).
        learning_rate: the highest rate of the schedule (default 5e-5).
        schedule: warmup-linear, warmup-cosine, warmup-constant, slanted-triangular, one-cycle, inverse-square-root or constant
            (default warmup-linear).
        warmup_fraction: share of all steps over which the rate rises from 0 (default 0.1); slanted-triangular: its cut_frac.
        weight_decay: decay per step, times the rate, of all but biases and LayerNorm (default 0.01).
        clip_norm: largest norm of the gradient of all weights together; 0 switches clipping off (default 1.0).
        layer_decay: what the rate is multiplied by for each group of layers on the way down from the head (default 1.0); 0.8 in ELECTRA.
        freeze: what does not learn: "embeddings,layers[:3]" (as Python slices), "encoder" (the head alone learns), "weights" (the
            encoder's biases and the head learn: BitFit). None (default): all learns.
        accumulate: parts that a batch is computed in, one after the other: the same update at less memory (default 1).
        ema: momentum of a moving average of the weights, which is then what is scored, chosen and kept; 0.99, say (default 0: none).
        fgm: length of adversarial steps on the word embeddings, 1 for most models (default 0: none; Miyato et al. 2017). Twice the time.
        r_drop: how much two passes with different dropout must agree, 1 to 5 (default 0: one pass; Liang et al. 2021). Twice the time.
        patience: stop after so many epochs without a better score; None never stops early.
        monitor: the score that chooses the best epoch; None takes the task's own.
        precision: float32, bfloat16, float16, or auto: bfloat16 where the hardware multiplies it faster, else float32.
        strategy: auto, cpu or gpu.
        seed: of the new head, the order of the rows, dropout and the held-out split (default 0).
        new_head: drop the head of a checkpoint that was fine-tuned before and begin a new one (default False): intermediate training on a
            larger task helps small ones (Phang et al. 2018, "Sentence Encoders on STILTs").
        encoder: "lean" (default), or "transformers": TF Transformers' own layers, slower and of equal outputs.
        allow_missing_labels: accept validation and test data in which a label never occurs (default False).
        overwrite: replace a folder that holds a finished run (default False).
        export: write the SavedModel too (default True).
        report: write report.html too: scores, where the model is wrong, what the data are. It needs matplotlib, the extra `report`; None
            (default) writes it where that is installed.

    Returns:
        FineTuned: task, model, tokenizer, history, metrics, directory.

    Raises:
        InputError: whatever the user can mend, in one line that names the place.
    """
    settings = {name: value for name, value in locals().items() if name in _SETTINGS}
    directory = Path(directory)
    _check_settings(task, settings)
    report = plots.available() if report is None else report and plots.needed()
    with files.locked(directory):
        _check_output(directory, overwrite)
        train, validation, test = _read(task, train, validation, test, seed)
        tokenizer = tokenization.load_tokenizer(checkpoint)
        if export:
            tokenization.check_graph(tokenizer)
        task = task.from_data(train)
        _check_parts(task, train, [part for part in (validation, test) if part is not None], allow_missing_labels)
        task, model, history, results = run.Run(task, checkpoint, tokenizer, train, validation, test, settings)()
        tuned = FineTuned(task, model, tokenizer, history, results, directory)
        _write(tuned, export)
        if report:
            _report(tuned, {"train": train, "validation": validation, **({} if test is None else {"test": test})})
    return tuned


def _write(tuned: FineTuned, export: bool) -> None:
    """Writes the folder, which appears when all in it is complete."""
    with files.new_directory(tuned.directory, overwrite=True) as folder:
        models.save(tuned.model, folder / "checkpoint", tuned.tokenizer)
        files.write_json(folder / "task.json", tuned.task.to_json())
        files.write_json(folder / "metrics.json", tuned.metrics)
        files.write_text(folder / "history.csv", _table(tuned.history))
        if export:
            version = _next_version(tuned.directory)
            serving.export(tuned.task, tuned.model, tuned.tokenizer, folder, version=version)


def _report(tuned: FineTuned, parts: dict[str, Examples]) -> None:
    """Adds the data sheet to metrics.json, and report.html: at last, so that whatever fails here costs nobody a training."""
    tuned.metrics["data"] = analysis.data_sheet(tuned.task, tuned.tokenizer, parts)
    final = parts.get("test", parts["validation"])
    details = evaluation.evaluate(tuned.task, tuned.model, tuned.tokenizer, final, details=True)
    files.write_json(tuned.directory / "metrics.json", tuned.metrics)
    files.write_text(tuned.directory / "report.html", html(tuned.task, tuned.metrics, tuned.history, details))


_SETTINGS = (
    "epochs batch_size learning_rate schedule warmup_fraction weight_decay clip_norm layer_decay freeze accumulate ema fgm r_drop patience "
    "monitor precision strategy seed new_head encoder"
).split()


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
    with (directory / "history.csv").open(encoding="utf-8", newline="") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return FineTuned(
        task,
        task.build(directory / "checkpoint"),
        tokenization.load_tokenizer(directory / "checkpoint"),
        history,
        files.read_json(directory / "metrics.json"),
        directory,
    )


def _check_settings(task: Task, settings: dict[str, Any]) -> None:
    for name in ("epochs", "batch_size", "accumulate"):
        if settings[name] < 1:
            raise InputError(f"{name} is {settings[name]}; it must be at least 1")
    if not settings["learning_rate"] > 0:
        raise InputError(
            f"learning_rate is {settings['learning_rate']}; it must be positive (2e-5 to 5e-5 suits most models)"
        )
    if not settings["layer_decay"] > 0:
        raise InputError(f"layer_decay is {settings['layer_decay']}; it must be positive (1 for one rate, 0.8 to 0.95)")
    if not 0 <= settings["ema"] < 1:
        raise InputError(
            f"ema is {settings['ema']}; it must be at least 0, which is none, and below 1; 0.99 suits most runs"
        )
    if settings["accumulate"] > 1 and not task.in_parts:
        raise InputError(
            "accumulate computes a batch in parts, but this objective compares all of its examples; leave it out, or lower batch_size"
        )
    if settings["r_drop"] and task.divergence() is None:
        raise InputError(f"r_drop compares two answers as classes, which {task.name} does not have here; leave it out")
    choices = ("auto", *devices.PRECISIONS)
    if settings["precision"] not in choices:
        name = settings["precision"]
        raise InputError(f"precision is {name!r}; it must be one of {', '.join(choices)}.{suggest(name, choices)}")
    if settings["monitor"] is not None:
        metrics.direction(settings["monitor"])


def _check_output(directory: Path, overwrite: bool) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"{directory} is a file; the output must be a folder")
    finished = (directory / "metrics.json").is_file()
    if finished and not overwrite:
        raise InputError(
            f"{directory} holds a finished run; choose another output folder, or pass overwrite (--overwrite) to replace it"
        )
    if not finished and any(directory.iterdir()):
        raise InputError(f"{directory} is not empty and not the output of a run; choose another output folder")


def _check_parts(task: Task, train: Examples, held_out: list[Examples], allow_missing_labels: bool) -> None:
    for part in (train, *held_out):
        task.check(part)
    for part in () if allow_missing_labels else held_out:
        task.check_coverage(part)


def _read(task, train, validation, test, seed) -> tuple[Examples, Examples, Examples | None]:
    train = from_iterable(train, "train")
    if len(train) == 0:
        raise InputError(f"{train.source} has no examples; training needs some")
    if validation is None:
        train, validation = split(train, 0.1, seed=seed, group=task.together)
    else:
        validation = from_iterable(validation, "validation")
    test = None if test is None else from_iterable(test, "test")
    for part in (validation, test):
        if part is not None and len(part) == 0:
            raise InputError(f"{part.source} has no examples to score")
    return train, validation, test


def _next_version(directory: Path) -> int:
    versions = [int(path.name) for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
    return max(versions, default=0) + 1


def _table(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()

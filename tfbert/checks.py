"""What is checked before a training begins: settings, the output's place, the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfbert import devices, metrics
from tfbert._compat import lazy
from tfbert.errors import InputError, suggest
from tfbert.prepared import Prepared
from tfbert.sources import Examples, from_iterable, split
from tfbert.tasks import Task

callbacks = lazy("tfbert.callbacks")  # they subclass Keras classes
FROZEN_CACHES = ("auto", "bfloat16", "off")


def check_settings(task: Task, settings: dict[str, Any], save_every: int) -> None:
    for name in ("epochs", "batch_size", "accumulate", "seeds", "adapt_epochs"):
        if settings[name] < 1:
            raise InputError(f"{name} is {settings[name]}; it must be at least 1")
    if save_every < 0:
        raise InputError(f"save_every is {save_every}; it must be at least 0 seconds")
    if settings["evaluate_every"] < 0:
        raise InputError(
            f"evaluate_every is {settings['evaluate_every']}; give steps, at least 1, or 0 for each epoch's end"
        )
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
    if not settings["teacher_temperature"] > 0:
        raise InputError(f"teacher_temperature is {settings['teacher_temperature']}; it must be positive (1 to 8)")
    if not 0 < settings["teacher_share"] <= 1:
        raise InputError(
            f"teacher_share is {settings['teacher_share']}; it must be above 0 and at most 1, which leaves the labels out"
        )
    if settings["r_drop"] and task.divergence() is None:
        raise InputError(f"r_drop compares two answers as classes, which {task.name} does not have here; leave it out")
    if devices.uses_xla(settings["xla"], settings["strategy"]) and settings["xla"] == "on":
        if not task.in_parts:
            raise InputError(
                "xla fills up the last batch of an epoch, but this objective compares all examples of a batch; leave it out"
            )
        if settings["accumulate"] > 1 or settings["fgm"] or settings["r_drop"]:
            raise InputError(
                "xla compiles Keras' own training step, not accumulate, fgm or r_drop; leave it or them out"
            )
    _check_freezing(settings)
    choices = ("auto", *devices.PRECISIONS)
    if settings["precision"] not in choices:
        name = settings["precision"]
        raise InputError(f"precision is {name!r}; it must be one of {', '.join(choices)}.{suggest(name, choices)}")
    if settings["monitor"] is not None:
        metrics.direction(settings["monitor"])


def _check_freezing(settings: dict[str, Any]) -> None:
    if settings["frozen_cache"] not in FROZEN_CACHES:
        name = settings["frozen_cache"]
        raise InputError(
            f"frozen_cache is {name!r}; it must be one of {', '.join(FROZEN_CACHES)}.{suggest(name, FROZEN_CACHES)}"
        )
    if settings["unfreeze"] is not None:
        callbacks.GradualUnfreezing.read(settings["unfreeze"])
        if settings["freeze"] is not None or settings["lora"]:
            raise InputError(
                "unfreeze says for each epoch what learns, and so does freeze, or lora, for all of them; leave one of the two out"
            )
    if settings["evaluate_every"] and settings["unfreeze"] is not None:
        raise InputError("unfreeze counts in epochs, which evaluate_every makes parts of; leave one of the two out")


def begin(directory: Path, states, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Checks that the output may be written, and returns the state to go on from; None where the run begins."""
    with states.workers.agreeing():
        if directory.exists() and not directory.is_dir():
            raise InputError(f"{directory} is a file; the output must be a folder")
        finished = (directory / "metrics.json").is_file()
        if not finished and directory.exists() and any(directory.iterdir()):
            raise InputError(f"{directory} is not empty and not the output of a run; choose another output folder")
        if overwrite and not resume:
            states.clear()
    saved = states.newest() if resume else None
    with states.workers.agreeing():
        if finished and not overwrite and saved is None:
            raise InputError(
                f"{directory} holds a finished run; choose another output folder, or pass overwrite (--overwrite) to replace it"
            )
        if states and saved is None:
            raise InputError(
                f"{directory} has a run that was interrupted; pass resume (--resume) to go on with it, or overwrite (--overwrite) to "
                "begin anew"
            )
    return saved


def check_parts(task: Task, train: Examples, held_out: list[Examples], allow_missing_labels: bool) -> None:
    for part in (train, *held_out):
        if not isinstance(part, Prepared):  # which was checked before it was tokenized
            task.check(part)
    for part in () if allow_missing_labels else held_out:
        task.check_coverage(part)


def check_unlabelled(task: Task, unlabelled: Examples) -> None:
    if not unlabelled:
        raise InputError(f"{unlabelled.source} has no examples; leave unlabelled out, or add texts")
    for i in range(len(unlabelled)):
        for name in task.inputs:
            task.input(unlabelled, i, name)


def read(task, train, validation, test, seed) -> tuple[Examples | Prepared, Examples, Examples | None]:
    if isinstance(train, Prepared):
        if validation is None:
            raise InputError(
                f"{train.source} is read as a stream, of which nothing is held out; give validation data (--validation)"
            )
    else:
        train = from_iterable(train, "train")
    if len(train) == 0:
        raise InputError(f"{train.source} has no examples; training needs some")
    if validation is None:
        train, validation = split(train, 0.1, seed=seed, group=task.together)
    else:
        validation = _scored(validation, "validation")
    test = None if test is None else _scored(test, "test")
    for part in (validation, test):
        if part is not None and len(part) == 0:
            raise InputError(f"{part.source} has no examples to score")
    return train, validation, test


def _scored(part, name: str) -> Examples:
    """Examples that are scored, which must be there themselves."""
    return part.examples() if isinstance(part, Prepared) else from_iterable(part, name)

"""What is checked before a training begins: settings, the output's place, the data."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfbert import devices, metrics, models
from tfbert._compat import check_weights_may_change, lazy
from tfbert.errors import InputError, suggest
from tfbert.files import check_replaceable, read_json, write_json
from tfbert.names import group_of
from tfbert.prepared import Prepared
from tfbert.sources import Examples, from_iterable, split
from tfbert.tasks import Task

# They subclass Keras classes.
callbacks, schedules = lazy("tfbert.callbacks"), lazy("tfbert.schedules")
# What may differ in a run that goes on, where the user says so: the bits may then be others, the training stays the one that was meant.
ACCEPTABLE = ("versions.", "patience", "strategy", "test")
FROZEN_CACHES = ("auto", "bfloat16", "off")


def check_settings(task: Task, settings: dict[str, Any], save_every: int) -> None:
    check_weights_may_change()
    for name in ("epochs", "batch_size", "accumulate", "seeds", "adapt_epochs"):
        if settings[name] < 1:
            raise InputError(f"{name} is {settings[name]}; it must be at least 1")
    if save_every < 0:
        raise InputError(f"save_every is {save_every}; it must be at least 0 seconds")
    if settings["evaluate_every"] < 0:
        raise InputError(
            f"evaluate_every is {settings['evaluate_every']}; give steps, at least 1, or 0 for each epoch's end"
        )
    _check_optimization(settings)
    _check_ways(task, settings)
    _check_freezing(settings)
    choices = ("auto", *devices.PRECISIONS)
    if settings["precision"] not in choices:
        name = settings["precision"]
        raise InputError(f"precision is {name!r}; it must be one of {', '.join(choices)}.{suggest(name, choices)}")
    if settings["monitor"] is not None:
        metrics.direction(settings["monitor"])


def _check_optimization(settings: dict[str, Any]) -> None:
    if not settings["learning_rate"] > 0:
        raise InputError(
            f"learning_rate is {settings['learning_rate']}; it must be positive (2e-5 to 5e-5 suits most models)"
        )
    # Any number of steps will do to see what is wrong with a schedule; now, not after the text of `adapt` was learnt.
    schedules.by_name(
        settings["schedule"], settings["learning_rate"], total_steps=1000, warmup_fraction=settings["warmup_fraction"]
    )
    for name in ("weight_decay", "clip_norm"):
        if not settings[name] >= 0:
            raise InputError(f"{name} is {settings[name]}; it must be at least 0, which is none")
    if settings["patience"] is not None and settings["patience"] < 1:
        raise InputError(f"patience is {settings['patience']}; it must be at least 1, or be left out")
    last = settings["seed"] + settings["seeds"] - 1
    if settings["seed"] < 0 or last >= 2**32:
        raise InputError(f"seed is {settings['seed']}; each seed must be at least 0 and below 2^32")
    if not settings["layer_decay"] > 0:
        raise InputError(f"layer_decay is {settings['layer_decay']}; it must be positive (1 for one rate, 0.8 to 0.95)")
    if not 0 <= settings["ema"] < 1:
        raise InputError(
            f"ema is {settings['ema']}; it must be at least 0, which is none, and below 1; 0.99 suits most runs"
        )


def _check_ways(task: Task, settings: dict[str, Any]) -> None:
    """What this task, or another setting, cannot be combined with."""
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


def _check_freezing(settings: dict[str, Any]) -> None:
    if settings["frozen_cache"] not in FROZEN_CACHES:
        name = settings["frozen_cache"]
        raise InputError(
            f"frozen_cache is {name!r}; it must be one of {', '.join(FROZEN_CACHES)}.{suggest(name, FROZEN_CACHES)}"
        )
    if settings["reinitialize"] and settings["lora"]:
        raise InputError("lora freezes the layers that reinitialize draws anew; leave one of the two out")
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
        check_replaceable(directory)
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


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], directory, *, allow_changes: bool) -> None:
    """Refuses to go on with a run that was begun with other arguments, data, checkpoint or versions.

    Args:
        before: name -> value, of the run as it was begun.
        now: the same of this one.
        directory: the output folder, for the message.
        allow_changes: accept other versions, patience, strategy or test data, which do not change what is learned but for the last bits.

    Example:
        >>> check_same({"epochs": 3, "seed": 0}, {"epochs": 5, "seed": 0}, "saved_models/movies", allow_changes=True)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: saved_models/movies was begun otherwise: epochs: 3 -> 5; go on as it was begun, or choose ...
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = "; ".join(f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}" for name in names)
    if not names:
        return
    if not all(name.startswith(ACCEPTABLE) for name in names):
        raise InputError(
            f"{directory} was begun otherwise: {told}; go on as it was begun, or choose another output folder, or pass overwrite "
            "(--overwrite) to begin anew"
        )
    if not allow_changes:
        raise InputError(
            f"{directory} was begun otherwise: {told}; pass allow_changes (--allow-changes) to go on all the same: the result may differ "
            "in the last bits from that of an unbroken run"
        )
    print(f"tfbert: {directory} goes on with changes: {told}", file=sys.stderr)


def _short(value) -> str:
    """A value as a message shows it: of a SHA-256 the beginning."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)


@contextlib.contextmanager
def as_begun(place: Path, identity: dict[str, Any], arguments: dict[str, Any]) -> Iterator[None]:
    """Surrounds the runs in a folder beside the output, which go on only as they were begun; where they leave nothing, it goes too."""
    plan, identity = place / "plan.json", json.loads(json.dumps(identity))
    if plan.is_file():
        before, allowed = read_json(plan), arguments["allow_changes"]
        check_same(before, identity, arguments["directory"], allow_changes=allowed)
    else:
        write_json(plan, identity)
    try:
        yield
    finally:
        if place.is_dir() and list(place.iterdir()) == [plan]:
            shutil.rmtree(place)


def check_frozen(model, settings: dict[str, Any]) -> None:
    """Refuses to freeze what something else is there to let learn."""
    frozen, learning = settings["freeze"], {variable.ref() for variable in model.trainable_weights}
    if settings["lora"] and not any(small.ref() in learning for small in models.lora_weights(model)):
        raise InputError(f"freeze is {frozen!r}, which leaves nothing of lora to learn; leave one of the two out")
    drawn = models.drawn_anew(model, settings["reinitialize"]) if settings["reinitialize"] else []
    still = [variable for variable in drawn if variable.ref() not in learning]
    if still:
        raise InputError(
            f"freeze is {frozen!r}, with which {group_of(still[0].name)} would stay as reinitialize draws it; leave one of the two out"
        )


def check_monitor(monitor: str, found: Iterable[Sequence[str]]) -> None:
    """Refuses a score that is in none of several lists of names, each made when it is asked for."""
    names: Sequence[str] = ()
    for names in found:
        if monitor in names:
            return
    raise InputError(f"no score is called {monitor!r};{suggest(monitor, names)} there are {', '.join(names)}")


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


def read(
    task, train, validation, test, seed
) -> tuple[Examples | Prepared, Examples, Examples | None, Examples | Prepared]:
    """The parts of the data: train, validation and test, and what a task takes its labels from: train, with what was held out of it."""
    if isinstance(train, Prepared):
        if validation is None:
            raise InputError(
                f"{train.source} is read as a stream, of which nothing is held out; give validation data (--validation)"
            )
    else:
        train = from_iterable(train, "train")
    if len(train) == 0:
        raise InputError(f"{train.source} has no examples; training needs some")
    whole = train
    if validation is None:
        train, validation = split(train, 0.1, seed=seed, group=task.together)
    else:
        validation = _scored(validation, "validation")
    test = None if test is None else _scored(test, "test")
    for part in (validation, test):
        if part is not None and len(part) == 0:
            raise InputError(f"{part.source} has no examples to score")
    return train, validation, test, whole


def _scored(part, name: str) -> Examples:
    """Examples that are scored, which must be there themselves."""
    return part.examples() if isinstance(part, Prepared) else from_iterable(part, name)

"""What a lower precision costs: the model's and the export's scores on labelled data, before anybody can see the export."""

from __future__ import annotations

from collections.abc import Iterable

from tfbert import metrics
from tfbert._compat import lazy
from tfbert.errors import InputError
from tfbert.sources import Examples, from_iterable

# Whoever only calls an export needs neither the models nor the evaluation.
evaluation = lazy("tfbert.evaluation")


def checked(task, precision: str, data: Iterable | None, max_drop: float) -> Examples | None:
    """The labelled examples, looked through before the work begins.

    Raises:
        InputError: a lower precision without data, an example that is not the task's, or a `max_drop` that is no share.
    """
    if not 0 <= max_drop <= 1:
        raise InputError(f"max_drop is {max_drop}; it must be from 0 to 1")
    if data is None:
        if precision != "float32":
            raise InputError(
                f"precision is {precision!r}, and there is no data to measure what that costs; give data (--data FILE): labelled "
                "examples that the model was not trained on"
            )
        return None
    metrics.direction(task.monitor)  # a task that has no score says so
    examples = from_iterable(data, "data")
    task.check(examples)
    if len(examples) == 0:
        raise InputError("data is empty; give labelled examples that the model was not trained on")
    return examples


def scores(task, model, tokenizer, loaded, examples: Examples) -> dict[str, dict[str, float]]:
    """The task's scores of the model and of its export: {"model": {...}, "export": {...}}.

    Args:
        task: the task.
        model: the Keras model.
        tokenizer: the model's tokenizer.
        loaded: what `tf.saved_model.load` made of the export; its signature `tokens` is run.
        examples: labelled examples.
    """
    inference, tokens = evaluation.Inference(task, tokenizer, examples), loaded.signatures["tokens"]
    names = tokens.structured_input_signature[1]

    def exported(ids, training):
        return tokens(**{name: ids[name] for name in names})

    return {name: task.score(examples, inference(each)) for name, each in (("model", model), ("export", exported))}


def check_scores(task, precision: str, scores: dict[str, dict[str, float]], max_drop: float) -> None:
    """Refuses an export whose monitored score is worse than the model's by more than `max_drop`.

    Example:
        >>> from tfbert.tasks import SequenceClassification
        >>> task = SequenceClassification(labels=("bad", "good"))
        >>> check_scores(task, "int8", {"model": {"accuracy": 0.91}, "export": {"accuracy": 0.905}}, 0.01)
        >>> check_scores(task, "int8", {"model": {"accuracy": 0.91}, "export": {"accuracy": 0.85}}, 0.01)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: in int8 accuracy is 0.8500, the model's 0.9100: worse by more than max_drop, 0.01 (--max-drop)
    """
    name = task.monitor
    ours, theirs = scores["export"][name], scores["model"][name]
    drop = theirs - ours if metrics.direction(name) == "max" else (ours - theirs) / max(abs(theirs), 1e-12)
    if not drop <= max_drop:  # nor is NaN let through
        raise InputError(
            f"in {precision} {name} is {ours:.4f}, the model's {theirs:.4f}: worse by more than max_drop, {max_drop:g} (--max-drop)"
        )

"""Task-adaptive pretraining: the text on which an encoder learns as a masked language model before it is fine-tuned, and how."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tfbert.errors import InputError
from tfbert.sources import Examples, fingerprint, from_iterable
from tfbert.tasks import MaskedLM, Task

RATE = 1e-4
# Below both of these a text is called small. The smallest training set with which Gururangan et al. (2020, table 2) saw it help,
# HyperPartisan, has 515 texts, of whole articles; each was read 100 times.
FEW_TEXTS, FEW_CHARACTERS = 500, 500_000
# What the masked LM has in common with the fine-tuning.
SHARED = (
    "batch_size weight_decay clip_norm accumulate precision strategy seed new_head encoder gradient_checkpointing save_every"
).split()


def text(adapt, task: Task, train: Examples) -> Examples:
    """The documents that `adapt` asks for.

    Args:
        adapt: "train" for the texts of the training examples, each once; or examples with the field `text`.
        task: the task that comes after.
        train: its training examples.

    Raises:
        InputError: another word, an example without a text, or no text at all.

    Example:
        >>> from tfbert.tasks import SequenceClassification
        >>> rows = [{"text": "good", "label": "a"}, {"text": "bad", "label": "b"}, {"text": "good", "label": "b"}]
        >>> text("train", SequenceClassification(), from_iterable(rows))
        [{'text': 'good'}, {'text': 'bad'}]
    """
    if isinstance(adapt, str) and adapt != "train":
        raise InputError(
            f"adapt is {adapt!r}; give 'train' for the texts of the training examples, or examples: tfbert.read_documents({adapt!r})"
        )
    if not isinstance(adapt, str):
        found = from_iterable(adapt, "adapt")
        MaskedLM().check(found)
    else:
        values = (task.input(train, i, name) for i in range(len(train)) for name in task.inputs)
        texts = (each for value in values for each in ([value] if isinstance(value, str) else value))
        found = Examples([{"text": each} for each in dict.fromkeys(texts)], source=train.source)
    kept = found.select(i for i in range(len(found)) if found[i]["text"].strip())
    if not kept:
        raise InputError(f"adapt: there is no text in {found.source}")
    return kept


def warn_if_small(documents: Examples, epochs: int) -> None:
    """Says on stderr that a text is smaller than any that adaptation is known to help with."""
    characters = sum(len(row["text"]) for row in documents)
    if len(documents) < FEW_TEXTS and characters < FEW_CHARACTERS:
        print(
            f"tfbert: warning: adapt has {len(documents):,} texts of {characters:,} characters in all, read {epochs} times; the least with "
            "which Gururangan et al. (2020) saw it help were 515 articles, read 100 times: give more text (or adapt_epochs), or compare "
            "with a run without adapt",
            file=sys.stderr,
        )


def arguments(task: Task, given: Mapping[str, Any], parts: Iterable[Examples]) -> dict[str, Any]:
    """The arguments of `fine_tune` for the masked LM.

    Args:
        task: the task that comes after, whose rows have the same length.
        given: the arguments of its own `fine_tune`.
        parts: the documents to learn from, and those held out.
    """
    train, validation = parts
    return {
        "task": MaskedLM(max_length=task.max_length),
        "checkpoint": given["checkpoint"],
        "train": train,
        "validation": validation,
        "epochs": given["adapt_epochs"],
        "learning_rate": RATE,
        **{name: given[name] for name in SHARED},
        "resume": True,
        "allow_changes": given["allow_changes"],
        "export": False,
        "report": False,
    }


def about(results: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.json says of the adaptation, from the metrics.json of its own run."""
    names = ("rows", "sources", "data_sha256", "validation", "best_epoch", "train_seconds")
    return {"epochs": results["settings"]["epochs"], **{name: results[name] for name in names}}


def identity(of_tuning: Mapping[str, Any], epochs: int, documents: Examples) -> dict[str, Any]:
    """On what an adaptation depends, name -> value: `Run.identity` of the fine-tuning after it, less what that alone reads, and the text.

    Example:
        >>> text = Examples([{"text": "good"}])
        >>> list(identity({"batch_size": 32, "lora": 0, "task.max_length": 128, "train": "1f"}, 3, text))
        ['batch_size', 'task.max_length', 'adapt_epochs', 'adapt']
    """
    names, beginnings = (*SHARED, "task.max_length"), ("checkpoint/", "strategy.", "versions.")
    kept = {name: value for name, value in of_tuning.items() if name in names or name.startswith(beginnings)}
    return {**kept, "adapt_epochs": epochs, "adapt": fingerprint(documents)}

"""The tasks, by the name that the command line and task.json give them."""

from __future__ import annotations

from pathlib import Path

from tfbert.errors import InputError, suggest
from tfbert.files import read_json
from tfbert.tasks.base import Task
from tfbert.tasks.bert_pretraining import BertPretraining
from tfbert.tasks.causal_lm import CausalLM
from tfbert.tasks.masked_lm import MaskedLM
from tfbert.tasks.multiple_choice import MultipleChoice
from tfbert.tasks.question_answering import QuestionAnswering
from tfbert.tasks.replaced_token_detection import ReplacedTokenDetection
from tfbert.tasks.sentence_embedding import SentenceEmbedding
from tfbert.tasks.seq2seq import Seq2Seq
from tfbert.tasks.sequence_classification import SequenceClassification
from tfbert.tasks.span_corruption import SpanCorruption
from tfbert.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        SequenceClassification,
        TokenClassification,
        QuestionAnswering,
        MultipleChoice,
        SentenceEmbedding,
        MaskedLM,
        CausalLM,
        Seq2Seq,
        BertPretraining,
        ReplacedTokenDetection,
        SpanCorruption,
    )
}


def by_name(name: str) -> type[Task]:
    """Returns the task class of a name such as "sequence-classification".

    Example:
        >>> by_name("sequence-classification").__name__
        'SequenceClassification'
    """
    if name not in TASKS:
        raise InputError(f"no task {name!r}; the tasks are {', '.join(TASKS)}.{suggest(name, TASKS)}")
    return TASKS[name]


def read_task(path: str | Path) -> Task:
    """Reads a task.json that `fine_tune` wrote."""
    return task_from(read_json(path), str(path))


def task_from(fields, where: str) -> Task:
    """Makes the task that `to_json` was called of; `where` is what an error names."""
    if not isinstance(fields, dict) or "task" not in fields:
        raise InputError(
            f"{where} is not a task file: it has no field 'task'; it should come from a folder that fine-tune wrote"
        )
    return by_name(fields["task"]).from_json(fields, where)


__all__ = [
    "TASKS",
    "BertPretraining",
    "CausalLM",
    "MaskedLM",
    "MultipleChoice",
    "QuestionAnswering",
    "ReplacedTokenDetection",
    "SentenceEmbedding",
    "Seq2Seq",
    "SequenceClassification",
    "SpanCorruption",
    "Task",
    "TokenClassification",
    "by_name",
    "read_task",
    "task_from",
]

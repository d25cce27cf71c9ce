"""Extractive question answering: the stretch of a text that answers a question, or that there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.decoding.spans import best_spans, likely_spans, sum_of_equals, target_places
from tfbert.decoding.substrings import substrings
from tfbert.errors import InputError
from tfbert.features import Features, collect
from tfbert.sources import Examples, questions
from tfbert.tasks import fields
from tfbert.tasks.base import Task
from tfbert.tokenization import Rows

POST_PROCESSING = ("run_qa", "pipeline")
LOST = 0.2  # the share of answers beyond which their loss is an error


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """The answer to a question as a stretch of a context (SQuAD), with its place; or none, where the data has such questions.

    An example is a dict with `question`, `context` and `answers`, a list of {"text", "start"} in code points, empty where there is no
    answer (what `read_squad` gives); `weight` is optional. The context is cut into windows that overlap, each beside the question, so
    it may be as long as it likes.

    Args:
        no_answer: whether a question may have no answer (SQuAD 2.0); None means: as the training data has it.
        threshold: "no answer" is given where its score is more than this above the best answer's; None: tuned on validation data (0
            before).
        stride: pieces of the context that a window shares with the one before (default 128, or half of the room where rows are short).
        max_question_length: pieces of a question; longer ones are an error in training and cut when served (default 64).
        post_processing: how the scores of tokens become an answer. "run_qa" (default), as the Hugging Face script does it: the span whose
            two logits sum up highest. "pipeline", as the Hugging Face pipeline does it: probabilities within each window, spans widened to
            whole words, those of equal words added up. With the pipeline's own settings, n_best=12, max_answer_length=15 and threshold=0,
            the answers are its answers; no_answer is what it calls handle_impossible_answer. Training is the same for both.
        n_best: candidates kept of each window (default 20).
        max_answer_length: pieces of an answer (default 30).
        allow_lost_answers: train though more than a fifth of the answers fits in no window (default False).
        max_length: tokens of a row, special tokens included (default 384).

    Example:
        >>> task = QuestionAnswering(no_answer=True)
        >>> task.inputs, task.monitor
        (('question', 'context'), 'f1')
    """

    name: ClassVar[str] = "question-answering"
    head: ClassVar[str] = "question-answering"
    together: ClassVar[str] = "context"
    not_in_rows: ClassVar[tuple[str, ...]] = (
        "threshold",
        "post_processing",
        "n_best",
        "max_answer_length",
        "allow_lost_answers",
    )

    max_length: int = dataclasses.field(default=384, metadata={"help": "tokens of a row, special tokens included"})
    no_answer: bool | None = dataclasses.field(
        default=None, metadata={"help": "questions may have no answer (default: as in the data)"}
    )
    threshold: float | None = dataclasses.field(
        default=None, metadata={"help": "how far above the best answer 'no answer' must score (default: tuned)"}
    )
    stride: int = dataclasses.field(default=128, metadata={"help": "pieces that a window shares with the one before"})
    max_question_length: int = dataclasses.field(default=64, metadata={"help": "pieces of a question"})
    post_processing: str = dataclasses.field(
        default="run_qa", metadata={"help": ", ".join(POST_PROCESSING), "choices": POST_PROCESSING}
    )
    n_best: int = dataclasses.field(default=20, metadata={"help": "candidates kept of each window"})
    max_answer_length: int = dataclasses.field(default=30, metadata={"help": "pieces of an answer"})
    allow_lost_answers: bool = dataclasses.field(
        default=False, metadata={"help": "train though more than a fifth of the answers fits in no window"}
    )

    def __post_init__(self):
        fields.one_of("post_processing", self.post_processing, POST_PROCESSING)
        for name, least in (("stride", 0), ("max_question_length", 1), ("n_best", 1), ("max_answer_length", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    # 1. examples -> features

    def from_data(self, examples: Examples) -> QuestionAnswering:
        if self.no_answer is not None:
            return self
        return dataclasses.replace(self, no_answer=any(not row["answers"] for row in questions(examples)))

    @property
    def is_open(self) -> bool:
        return self.no_answer is None

    def told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        answers = row.get("answers")
        found = answers.get("text") if isinstance(answers, Mapping) else answers
        return {"question": "a", "context": "a", "answers": [{"text": "a", "start": 0}] if found else []}

    def check(self, examples: Examples) -> None:
        for i, row in enumerate(questions(examples)):
            fields.weight(examples, i)
            if not row["answers"] and not self.no_answer:
                raise InputError(
                    f"{examples.where(i)}: there is no answer; say no_answer=True if questions may have none, or drop the row"
                )

    def check_coverage(self, examples: Examples) -> None:
        if self.no_answer and all(row["answers"] for row in questions(examples)):
            raise InputError(
                f"{examples.source}: every question has an answer, so no threshold for 'no answer' can be tuned; add rows without, or "
                "accept it with allow_missing_labels (--allow-missing-labels)"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("question", "context")

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        columns = {name: [fields.text(examples, i, name) for i in range(len(examples))] for name in self.inputs}
        pieces = tokenization.RustPieces(tokenizer)
        if targets:
            self._check_lengths(pieces, examples, columns["question"])
        found = collect(lambda texts: self.rows(pieces, texts), columns, padding=tokenization.padding(tokenizer))
        features = Features(**found, alone=True)
        return self._with_targets(features, questions(examples)) if targets else features

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        room = self.max_length - pieces.template.specials(pair=True)
        most = min(self.max_question_length, max(1, room // 2))
        question = tokenization.keep(pieces.ids_and_offsets(texts["question"]).ids, most, "head")
        context = pieces.ids_and_offsets(texts["context"])
        stride = min(self.stride, max(0, (room - most) // 2))
        return tokenization.windows(pieces.template, context, question, max_length=self.max_length, stride=stride)

    def _check_lengths(self, pieces, examples: Examples, texts: list[str]) -> None:
        room = self.max_length - pieces.template.specials(pair=True)
        most = min(self.max_question_length, max(1, room // 2))
        for i, length in enumerate(pieces.ids_and_offsets(texts).ids.row_lengths().numpy().tolist()):
            if length > most:
                raise InputError(
                    f"{examples.where(i)}: the question has {length} tokens, more than the {most} that max_question_length "
                    f"{self.max_question_length} and max_length {self.max_length} leave it; raise them or shorten the question"
                )

    def _with_targets(self, features: Features, examples: Examples) -> Features:
        """Gives each window the places of the answer's first and last token, or [CLS], where the answer is not wholly in it."""
        (start, splits), (end, _), (piece, _) = (features.aligned[name] for name in ("start", "end", "piece"))
        cls = np.flatnonzero(features.aligned["cls"][0]) - splits[:-1]
        places = np.stack([cls, cls]).astype(np.int32)
        weights = np.ones(len(splits) - 1, np.float32)
        asked = lost = 0
        for i, row in enumerate(examples):
            windows = range(features.examples[i], features.examples[i + 1])
            weights[windows.start : windows.stop] = fields.weight(examples, i)
            if not row["answers"]:
                continue
            answer = row["answers"][0]
            found = False
            for r in windows:
                inside = np.flatnonzero(piece[splits[r] : splits[r + 1]] >= 0)
                at = splits[r] + inside
                target = target_places(start[at], end[at], (answer["start"], answer["start"] + len(answer["text"])))
                if target is not None:
                    places[:, r] = inside[list(target)]
                    found = True
            asked, lost = asked + 1, lost + (not found)
        if lost > LOST * asked and not self.allow_lost_answers:
            raise InputError(
                f"{examples.source}: {lost} of {asked} answers fit in no window of max_length {self.max_length} and would be learnt as 'no "
                "answer'; raise max_length or stride, or accept it with allow_lost_answers (--allow-lost-answers)"
            )
        return dataclasses.replace(
            features, targets={"start_logits": places[0], "end_logits": places[1]}, weights=weights
        )

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        model = models.as_keras(models.load(checkpoint, self.head, **options))
        return models.without_padding(model)

    def loss(self):
        return _half_crossentropy

    def divergence(self):
        return lambda *both: 0.5 * losses.softmax_divergence(*both)

    def soft_loss(self):
        return _half_soft_crossentropy

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        start, end = (tf.cast(outputs[name], tf.float32) for name in ("start_logits", "end_logits"))
        places = (rows.start, rows.end, rows.cls, rows.example, rows.count)
        limits = {"n_best": self.n_best, "max_answer_length": self.max_answer_length}
        if self.post_processing == "pipeline":
            return likely_spans(start, end, rows.piece >= 0, rows.word, *places, **limits)
        return best_spans(start, end, rows.piece >= 0, *places, **limits, no_answer=bool(self.no_answer))

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        best = self._best(inferred, texts["context"])
        start, end, score = best["start"], best["end"], best["score"]
        if self.no_answer:
            none = best["no_answer_score"] > np.float32(self.threshold or 0.0)
            start, end = tf.where(none, 0, start), tf.where(none, 0, end)
            score = tf.where(none, best["null_probability"], score)
        return {
            "answer": substrings(texts["context"], start, end),
            "score": score,
            "start": start,
            "end": end,
            "no_answer_score": best["no_answer_score"],
        }

    def _best(self, inferred: Mapping[str, Any], contexts) -> Mapping[str, Any]:
        """The best span of each context, string [B], and what "no answer" scores, [B] each, as `best_spans` returns them."""
        if self.post_processing == "run_qa":
            return inferred
        start, end, score = sum_of_equals(contexts, inferred["starts"], inferred["ends"], inferred["scores"])
        null = inferred["null_score"]
        return {"start": start, "end": end, "score": score, "no_answer_score": null - score, "null_probability": null}

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return "f1"

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        references, answers, no_answer_score = self._answers(examples, inferred)
        if self.no_answer:
            none = no_answer_score > np.float32(self.threshold or 0.0)
            answers = ["" if empty else answer for answer, empty in zip(answers, none, strict=True)]
        return metrics.squad(references, answers)

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {}

    def label_counts(self, examples: Examples) -> dict[str, int]:
        none = sum(not row["answers"] for row in questions(examples))
        return {"answered": len(examples) - none, **({"no answer": none} if none else {})}

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> QuestionAnswering:
        if not self.no_answer or self.threshold is not None:
            return self
        return dataclasses.replace(self, threshold=metrics.squad_threshold(*self._answers(examples, inferred)))

    def _answers(
        self, examples: Examples, inferred: Mapping[str, np.ndarray]
    ) -> tuple[list[list[str]], list[str], np.ndarray]:
        """The right answers of each question, the best span of its context, and how much more "no answer" scores."""
        inferred = {name: tf.constant(values) for name, values in inferred.items()}
        best = self._best(inferred, tf.constant([row["context"] for row in examples], tf.string))
        spans = zip(best["start"].numpy().tolist(), best["end"].numpy().tolist(), strict=True)
        answers = [row["context"][start:end] for row, (start, end) in zip(examples, spans, strict=True)]
        references = [[answer["text"] for answer in row["answers"]] for row in questions(examples)]
        return references, answers, best["no_answer_score"].numpy()


def _half_crossentropy(places, logits):
    """Half of the cross-entropy of one place, [R], among the tokens, [R, T]: start's and end's together are their mean."""
    return 0.5 * losses.sparse_categorical_crossentropy(places, logits)


def _half_soft_crossentropy(places, teacher, logits, temperature):
    """The same with a teacher's scores, [R, max_length], of which a batch has the first T."""
    return 0.5 * losses.soft_crossentropy(places, teacher[:, : tf.shape(logits)[1]], logits, temperature=temperature)

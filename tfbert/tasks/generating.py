"""What the tasks share whose answers are texts that the model writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import metrics, tokenization
from tfbert._compat import tf
from tfbert.decoding.generation import Generation
from tfbert.errors import InputError
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import Task


def _setting(default, said: str):
    return dataclasses.field(default=default, metadata={"help": said})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generating(Task):
    """A task whose answers are written token by token; the settings are those of `decoding.generation.Generation`, by its names.

    Args:
        max_new_tokens: tokens of an answer, at most, the one that ends it included (default 32).
        min_new_tokens: tokens before which no answer ends (default 0).
        num_beams: answers followed side by side, of which the likeliest is given; 1 (default): the likeliest token each time.
        length_penalty: of beams: above 0 favours long answers (default 1.0).
        do_sample: draw tokens by their probability (default False). The same text gets the same answer, wherever it stands.
        temperature: of draws: below 1 makes likely tokens likelier (default 1.0).
        top_k: draw among so many likely tokens; 0 (default): among all.
        top_p: draw among the likely tokens that together have this probability; 1.0 (default): all.
        repetition_penalty: above 1 makes tokens that were there before less likely (default 1.0).
        no_repeat_ngram_size: no so many tokens come twice in the same order; 0 (default): they may.
        sampling_seed: of the draws (default 0).
        stop: tokens, as text, before which an answer ends (default: none but the tokenizer's own token for it).
        scores: further scores, of the written answers: exact_match, bleu, chrf, rouge1, rouge2, rougeL (see `metrics.texts`). The first of
            them chooses the best epoch. They take far more time than perplexity, the only one by default.
    """

    not_in_rows: ClassVar[tuple[str, ...]] = tuple(
        "min_new_tokens num_beams length_penalty do_sample temperature top_k top_p repetition_penalty no_repeat_ngram_size sampling_seed "
        "stop scores".split()
    )

    max_new_tokens: int = _setting(32, "tokens of an answer, at most")
    min_new_tokens: int = _setting(0, "tokens before which no answer ends")
    num_beams: int = _setting(1, "answers followed side by side; 1 takes the likeliest token each time")
    length_penalty: float = _setting(1.0, "of beams: above 0 favours long answers")
    do_sample: bool = _setting(False, "draw tokens by their probability")
    temperature: float = _setting(1.0, "of draws: below 1 makes likely tokens likelier")
    top_k: int = _setting(0, "draw among so many likely tokens; 0: among all")
    top_p: float = _setting(1.0, "draw among the likely tokens that together have this probability")
    repetition_penalty: float = _setting(1.0, "above 1 makes tokens that were there before less likely")
    no_repeat_ngram_size: int = _setting(0, "no so many tokens come twice in the same order; 0: they may")
    sampling_seed: int = _setting(0, "of the draws")
    stop: tuple[str, ...] = _setting((), "tokens, as text, before which an answer ends")
    scores: tuple[str, ...] = _setting(
        (), f"scores of written answers: {', '.join(metrics.TEXT_SCORES)}; the first chooses the best epoch"
    )

    def __post_init__(self):
        self.generation  # noqa: B018 - whose settings are checked
        metrics.check_text_scores(self.scores)

    @property
    def generation(self) -> Generation:
        """How answers are written."""
        names = [field.name for field in dataclasses.fields(Generation) if field.name != "seed"]
        return Generation(**{name: getattr(self, name) for name in names}, seed=self.sampling_seed)

    def ends(self, tokenizer) -> tuple[int, ...]:
        """The ids of the tokens that end an answer; a `stop` that is no token is an InputError."""
        pieces = tokenization.RustPieces(tokenizer)
        found = [pieces.vocabulary.end_id]
        for text, ids in zip(self.stop, pieces.ids_and_offsets(list(self.stop)).ids.to_list() if self.stop else []):
            if len(ids) != 1:
                raise InputError(f"stop has {text!r}, which is {len(ids)} tokens; give texts of one token each")
            found += ids
        return tuple(found)

    def check_export(self, tokenizer) -> None:
        super().check_export(tokenizer)
        tokenization.Vocabulary(tokenizer).text(tf.zeros([0, 1], tf.int32))  # refuses a decoder that the graph has not

    def check_coverage(self, examples: Examples) -> None:
        """Any text will do."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",)

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        if "generated" not in inferred:  # of examples whose loss alone was asked for
            return {"generated_text": tf.fill(tf.shape(inferred["loss"]), "")}
        return {"generated_text": pieces.detokenize(inferred["generated"])}

    def read(self, inferred: dict[str, np.ndarray], pieces) -> dict[str, np.ndarray]:
        if "generated" not in inferred:
            return inferred
        return {**inferred, "generated_text": pieces.detokenize(inferred["generated"]).numpy()}

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    @property
    def monitor(self) -> str:
        return self.scores[0] if self.scores else "perplexity"

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = metrics.language_model(inferred["loss"], inferred["count"], inferred["right"])
        if not self.scores:
            return found
        references = [fields.text(examples, i, "target") for i in range(len(examples))]
        written = [text.decode("utf-8", "replace") for text in inferred["generated_text"]]
        return found | metrics.texts(self.scores, references, written)

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {}

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> Task:
        return self

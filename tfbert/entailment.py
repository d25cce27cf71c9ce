"""Zero-shot classification: labels that no training has seen, by a model of textual entailment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfbert import models
from tfbert._compat import tf
from tfbert.errors import InputError, suggest
from tfbert.pipeline import batches
from tfbert.sources import from_iterable


def zero_shot(
    task,
    model,
    tokenizer,
    texts: Iterable[str],
    labels: Sequence[str],
    *,
    template: str = "This example is {}.",
    multi: bool = False,
    entailment: str = "entailment",
    contradiction: str = "contradiction",
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Classifies texts by labels given at call time: does the text entail "This example is sports."? (Yin et al. 2019)

    Each text is paired with each label's sentence and read by a model that was fine-tuned on natural language inference (SNLI, MNLI).
    The scores are those of Hugging Face's zero-shot-classification pipeline.

    Args:
        task: the `SequenceClassification` of pairs, kind "single", that the model was fine-tuned for.
        model: what `task.build` returned.
        tokenizer: the model's tokenizer.
        texts: the N texts.
        labels: the L labels to choose from, words or short phrases.
        template: the sentence of a label; {} is the label.
        multi: whether any number of labels may hold: each has a score of its own, entailment against contradiction. Else the scores
            are a softmax over the labels (default False).
        entailment: the task's label for "follows from the text".
        contradiction: the task's label for "the contrary follows", which `multi` needs.
        batch_size: pairs computed at once (default 64).

    Returns:
        One dict per text: labels and scores in the order given, and unless `multi`, label and score, the best.

    Raises:
        InputError: the task is not one of entailment, or there is no label, or the template has no {}.

    Example:
        >>> zero_shot(task, model, tokenizer, ["A late goal won the cup."], ["sports", "cooking"])[0]["label"]     # doctest: +SKIP
        'sports'
    """
    labels, texts = list(labels), [texts] if isinstance(texts, str) else list(texts)
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"labels are {labels}; give at least one, each once")
    if "{}" not in template:
        raise InputError(f"template is {template!r}; it must have {{}} where the label goes")
    apart = multi or len(labels) == 1  # one label stands beside its contradiction, as in the pipeline
    places = _places(task, entailment, contradiction if apart else None)
    pairs = [{"text": text, "text_pair": template.replace("{}", label)} for text in texts for label in labels]
    models.check_task(task, model, tokenizer)
    features = task.features(tokenizer, from_iterable(pairs, "texts"), targets=False)
    logits = model.predict(batches(features, batch_size=batch_size), verbose=0)["logits"]  # [N * L, 3]
    chosen = tf.reshape(tf.gather(logits, places, axis=1), [len(texts), len(labels), len(places)])
    scores = tf.nn.softmax(chosen)[:, :, 0] if apart else tf.nn.softmax(chosen[:, :, 0])
    answers = [{"labels": labels, "scores": row} for row in scores.numpy().tolist()]
    if multi:
        return answers
    return [
        {"label": labels[best], "score": answer["scores"][best], **answer}
        for answer, best in zip(answers, tf.argmax(scores, axis=1).numpy().tolist(), strict=True)
    ]


def _places(task, entailment: str, contradiction: str | None) -> list[int]:
    """The columns of the model's logits that count."""
    known = list(getattr(task, "labels", ()))
    if task.inputs != ("text", "text_pair") or getattr(task, "kind", "") != "single":
        raise InputError(
            f"zero_shot needs a sequence-classification of pairs with one label each, fine-tuned on natural language inference; this is "
            f"{task.name} of {', '.join(task.inputs)}"
        )
    places = []
    for argument, name in (("entailment", entailment), ("contradiction", contradiction)):
        if name is not None:
            if name not in known:
                raise InputError(
                    f"the task has no label {name!r}; its labels are {', '.join(known)}: name the right one, {argument}="
                    f"{suggest(name, known)}"
                )
            places.append(known.index(name))
    return places

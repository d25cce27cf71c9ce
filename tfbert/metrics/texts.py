"""Scores of written texts beside the right ones, by the libraries that the field reports them with."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from tfbert._compat import lazy
from tfbert.errors import InputError, suggest

sacrebleu, rouge_scorer = lazy("sacrebleu"), lazy("rouge_score.rouge_scorer")

ROUGE = ("rouge1", "rouge2", "rougeL")
# The score, and the package that computes it.
TEXT_SCORES = {"exact_match": None, "bleu": "sacrebleu", "chrf": "sacrebleu", **dict.fromkeys(ROUGE, "rouge-score")}


def check_text_scores(names: Sequence[str]) -> None:
    """Raises InputError for a name that is no score of texts, and where its package is not installed.

    Example:
        >>> check_text_scores(["exact_match", "blue"])
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: there is no score 'blue'; there are exact_match, bleu, chrf, rouge1, rouge2, rougeL. Did you mean 'bleu'?
    """
    for name in names:
        if name not in TEXT_SCORES:
            raise InputError(
                f"there is no score {name!r}; there are {', '.join(TEXT_SCORES)}.{suggest(name, TEXT_SCORES)}"
            )
        package = TEXT_SCORES[name]
        if package and importlib.util.find_spec(package.replace("-", "_")) is None:
            raise InputError(f"{name} is computed by {package}, which is not installed: pip install {package}")


def texts(names: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Compares written texts with the right ones, one for each.

    Args:
        names: of TEXT_SCORES: exact_match, the share that is equal but for spaces at its ends; bleu and chrf of the whole, from 0 to 100,
            as sacrebleu gives them with its own settings (Post 2018, "A Call for Clarity in Reporting BLEU Scores"; Popovic 2015); rouge1,
            rouge2 and rougeL, the mean F-measures from 0 to 1, as rouge-score gives them without stemming (Lin 2004).
        references: N texts.
        answers: N texts.

    Returns:
        The scores by name.

    Raises:
        InputError: as `check_text_scores`.

    Example:
        >>> texts(["exact_match"], ["a cat", "a dog"], ["a cat ", "the dog"])
        {'exact_match': 0.5}
    """
    check_text_scores(names)
    found = {}
    for name in names:
        if name == "exact_match":
            pairs = zip(references, answers, strict=True)
            found[name] = sum(one.strip() == other.strip() for one, other in pairs) / max(1, len(references))
        elif name in ROUGE:
            scorer = rouge_scorer.RougeScorer([name])
            scores = [scorer.score(one, other)[name].fmeasure for one, other in zip(references, answers, strict=True)]
            found[name] = sum(scores) / max(1, len(scores))
        else:
            corpus = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
            found[name] = float(corpus(list(answers), [list(references)]).score)
    return found

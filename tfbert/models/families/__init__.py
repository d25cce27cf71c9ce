"""The one table of what differs between model families: a new family is a new row here, and nothing else."""

from __future__ import annotations

from tfbert.errors import InputError, suggest
from tfbert.models.families.base import Beginning, Family, Head, last_state
from tfbert.models.families.bert import BERT, CONVBERT, ELECTRA, MOBILEBERT, REMBERT, ROFORMER
from tfbert.models.families.compact import ALBERT, DISTILBERT
from tfbert.models.families.deberta import DEBERTA, DEBERTA_V2
from tfbert.models.families.generative import BART, GPT2, T5
from tfbert.models.families.roberta import CAMEMBERT, LONGFORMER, MPNET, ROBERTA, XLM_ROBERTA
from tfbert.models.families.xlnet import XLNET

__all__ = ["BERT", "FAMILIES", "LONGFORMER", "Beginning", "Family", "Head", "family_of", "last_state"]

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        BERT,
        ROBERTA,
        XLM_ROBERTA,
        CAMEMBERT,
        DISTILBERT,
        ALBERT,
        ELECTRA,
        MOBILEBERT,
        MPNET,
        DEBERTA,
        DEBERTA_V2,
        CONVBERT,
        ROFORMER,
        REMBERT,
        LONGFORMER,
        XLNET,
        GPT2,
        T5,
        BART,
    )
}


def family_of(model_type, where: str = "config.json") -> Family:
    """Returns the table's row for a `model_type`; an unknown one is an InputError that names `where`.

    Example:
        >>> family_of("bert").encoder
        'bert.'
        >>> family_of("brt")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: config.json: model_type is 'brt'; tfbert knows bert, roberta, ... Did you mean 'bert'?
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(
            f"{where}: model_type is {model_type!r}; tfbert knows {', '.join(FAMILIES)}.{suggest(model_type, FAMILIES)}"
        )
    return FAMILIES[model_type]

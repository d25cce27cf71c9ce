"""Which way each score is better."""

from __future__ import annotations

from tfbert.errors import InputError, suggest

# Which way is better; early stopping and "keep the best" ask here: Keras' mode="auto" minimises val_f1.
HIGHER_IS_BETTER = {
    "accuracy": True,
    "bleu": True,
    "chrf": True,
    "discriminator_loss": False,
    "exact_match": True,
    "expected_calibration_error": False,
    "f1": True,
    "f1_macro": True,
    "f1_micro": True,
    "generator_loss": False,
    "log_loss": False,
    "loss": False,
    "matthews_correlation": True,
    "mean_absolute_error": False,
    "mean_squared_error": False,
    "next_sentence_accuracy": True,
    "next_sentence_loss": False,
    "pearson": True,
    "perplexity": False,
    "precision": True,
    "precision_macro": True,
    "precision_micro": True,
    "pseudo_perplexity": False,
    "recall": True,
    "mean_reciprocal_rank": True,
    "recall_at_1": True,
    "recall_at_10": True,
    "recall_at_5": True,
    "recall_macro": True,
    "recall_micro": True,
    "roc_auc": True,
    "rouge1": True,
    "rouge2": True,
    "rougeL": True,
    "sentence_order_accuracy": True,
    "sentence_order_loss": False,
    "spearman": True,
}


def direction(name: str) -> str:
    """Which way a score is better: "max" or "min".

    Args:
        name: the score's name, with or without Keras' "val_" before it.

    Raises:
        InputError: no such score; a name of one's own needs its direction said.

    Example:
        >>> direction("f1_macro"), direction("val_loss")
        ('max', 'min')
    """
    plain = name.removeprefix("val_")
    if plain not in HIGHER_IS_BETTER:
        raise InputError(
            f"{name!r} is not a known score, so which way is better is not known;{suggest(plain, HIGHER_IS_BETTER)} "
            'give mode="max" or mode="min" for a score of your own'
        )
    return "max" if HIGHER_IS_BETTER[plain] else "min"

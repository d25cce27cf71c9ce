"""Scores of a whole data set: pure NumPy functions of references and answers, all in float64.

Nothing here is a mean over batches, so batch size and replicas cannot change a score. Every value is a finite float,
fit for JSON; a score that the data leave undefined is left out, or has the value that its docstring states.
"""

from tfbert.metrics.answers import squad, squad_threshold
from tfbert.metrics.calibration import expected_calibration_error, fit_temperature, reliability, temper
from tfbert.metrics.direction import HIGHER_IS_BETTER, direction
from tfbert.metrics.entities import entities, entities_by_type
from tfbert.metrics.labels import (
    classification,
    confusion_matrix,
    multilabel,
    per_class,
    regression,
    tune_thresholds,
)
from tfbert.metrics.language import language_model, replaced_tokens
from tfbert.metrics.retrieval import retrieval, unit_vectors
from tfbert.metrics.texts import TEXT_SCORES, check_text_scores, texts

__all__ = [
    "HIGHER_IS_BETTER",
    "TEXT_SCORES",
    "check_text_scores",
    "classification",
    "confusion_matrix",
    "direction",
    "entities",
    "entities_by_type",
    "expected_calibration_error",
    "fit_temperature",
    "language_model",
    "multilabel",
    "per_class",
    "regression",
    "reliability",
    "replaced_tokens",
    "retrieval",
    "squad",
    "squad_threshold",
    "temper",
    "texts",
    "tune_thresholds",
    "unit_vectors",
]

"""Plain Keras callbacks, for any compiled Keras model, TFBertForSequenceClassification too. In one `fit` their order matters,
for each sees the logs of those before it: the rate, EpochTimer, StopOnNonFinite, ScoreTask, Progress, History, then what saves."""

from __future__ import annotations

from tfbert.callbacks.rates import SlantedTriangularLearningRate, Warmup
from tfbert.callbacks.watching import EpochTimer, History, Progress, ScoreTask, StopOnNonFinite

__all__ = [
    "EpochTimer",
    "History",
    "Progress",
    "ScoreTask",
    "SlantedTriangularLearningRate",
    "StopOnNonFinite",
    "Warmup",
]

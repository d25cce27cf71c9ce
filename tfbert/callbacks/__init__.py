"""Plain Keras callbacks, for any compiled Keras model, TFBertForSequenceClassification too. In one `fit` their order matters, for
each sees the logs of those before it: the rate, EpochTimer, StopOnNonFinite, UseMovingAverages, ScoreTask, Progress, History, SaveState."""

from __future__ import annotations

from tfbert.callbacks.averaging import UseMovingAverages
from tfbert.callbacks.finding import FindLearningRate
from tfbert.callbacks.rates import SlantedTriangularLearningRate, Warmup
from tfbert.callbacks.unfreezing import GradualUnfreezing
from tfbert.callbacks.watching import EpochTimer, History, Progress, ScoreTask, StopAfter, StopOnNonFinite

__all__ = [
    "EpochTimer",
    "FindLearningRate",
    "GradualUnfreezing",
    "History",
    "Progress",
    "ScoreTask",
    "SlantedTriangularLearningRate",
    "StopAfter",
    "StopOnNonFinite",
    "UseMovingAverages",
    "Warmup",
]

"""The head of a language model that is its word embeddings."""

from __future__ import annotations

from tfbert._compat import keras, tf
from tfbert.models.keras_model import word_embeddings


class TiedHead(keras.layers.Layer):
    """Hidden states [.., D] -> logits [.., V]: times the word embeddings, which the head of a language model is.

    TF Transformers' own copies the table in each step, and cannot compute in bfloat16.

    Args:
        model: the TF Transformers model.
    """

    def __init__(self, model):
        super().__init__(name="tied_head")
        object.__setattr__(self, "_model", model)  # past Keras' tracking: the table is counted where it is

    def call(self, hidden):
        return tf.matmul(hidden, tf.cast(word_embeddings(self._model), hidden.dtype), transpose_b=True)

"""An exported sentence-embedding model in the forms that other libraries call: LangChain's and scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfbert.errors import InputError, suggest
from tfbert.serving.predictor import Predictor


class SentenceEmbedder:
    """Texts to vectors, by an export of `SentenceEmbedding`.

    It is a LangChain `Embeddings` (embed_documents, embed_query) and a scikit-learn transformer (fit, transform, get_params, ...) by its
    methods alone; neither library is needed, nor imported. The SavedModel is loaded at the first text, so a copy that
    `sklearn.base.clone` makes, or one that travels to another process, costs nothing before.

    Args:
        directory: what `Predictor` takes: the folder of a fine-tuned model, or of one version of its exports.
        batch_size: texts computed at once (default 32).

    Example:
        >>> embedder = SentenceEmbedder("saved_models/similar")                 # doctest: +SKIP
        >>> embedder.transform(["Where is my parcel?"]).shape                   # doctest: +SKIP
        (1, 384)
    """

    def __init__(self, directory: str | Path, *, batch_size: int = 32):
        self.directory = directory
        self.batch_size = batch_size

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, as lists of floats (LangChain)."""
        return [answer["embedding"] for answer in self._answers(texts)]

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text, as a list of floats (LangChain); queries and documents are embedded alike."""
        return self.embed_documents([text])[0]

    def fit(self, X: Iterable[str], y: Any = None) -> SentenceEmbedder:  # noqa: N803 - scikit-learn's name
        """Learns nothing: the model is trained. Returns itself (scikit-learn)."""
        return self

    def transform(self, X: Iterable[str]) -> np.ndarray:  # noqa: N803
        """The vectors of N texts, float32 [N, D] (scikit-learn)."""
        found = [answer["embedding"] for answer in self._answers(list(X))]
        return np.asarray(found, np.float32) if found else np.zeros([0, len(self.embed_query(""))], np.float32)

    def fit_transform(self, X: Iterable[str], y: Any = None, **options: Any) -> np.ndarray:  # noqa: N803
        """The same as `transform` (scikit-learn)."""
        return self.fit(X, y).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the D columns: embedding0, embedding1, ... (scikit-learn)."""
        return np.asarray([f"embedding{i}" for i in range(len(self.embed_query("")))], object)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with (scikit-learn)."""
        return {"directory": self.directory, "batch_size": self.batch_size}

    def set_params(self, **params: Any) -> SentenceEmbedder:
        """Sets arguments anew; an unknown one is an InputError (scikit-learn)."""
        for name, value in params.items():
            if name not in self.get_params():
                raise InputError(
                    f"no parameter {name!r}; there are directory and batch_size.{suggest(name, self.get_params())}"
                )
            setattr(self, name, value)
        vars(self).pop("_predictor", None)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params()

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _answers(self, texts: list[str]) -> list[dict[str, Any]]:
        if isinstance(texts, str):
            raise InputError("texts is one string; pass a list of texts, or use embed_query")
        if "_predictor" not in vars(self):
            predictor = Predictor(self.directory)
            if "embedding" not in predictor.outputs:
                raise InputError(
                    f"{predictor.directory} gives {', '.join(predictor.outputs)}; expected an export of sentence-embedding"
                )
            self._predictor = predictor
        return self._predictor(texts, batch_size=self.batch_size)

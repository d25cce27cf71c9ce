"""Calls an export from Python: the SavedModel and nothing else, so what answers here is what answers in TF Serving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from tfbert._compat import tf, tf_text
from tfbert.errors import InputError, suggest
from tfbert.files import read_json
from tfbert.serving.inputs import described, feeds, fits
from tfbert.serving.layout import INFORMATION, saved_model
from tfbert.serving.rows import rows
from tfbert.sources import Stream, windows

# Other processors round sums in another order; a wrong file is off by far more.
_GOLDEN_TOLERANCE = 1e-3
_BFLOAT16_TOLERANCE = 2e-2  # 8 bits, and processors with its instructions round less often than others


@final
class Predictor:
    """An exported model as a function from texts to answers.

    Only the SavedModel is used: no tokenizer, no transformers, no checkpoint. Texts of like length are computed together, and the
    answers come in the order of the texts.

    Args:
        directory: the folder of a version, or one with numbered versions (what `fine_tune` wrote, a TF Serving base path), of which
            the highest is taken.
        verify: run the texts that were stored with the export and compare the answers (default False).

    Raises:
        InputError: no SavedModel there, weights missing or damaged, or, with `verify`, other answers than when it was exported.

    Example:
        >>> predictor = Predictor("saved_models/reviews")                       # doctest: +SKIP
        >>> predictor(["A joy from start to finish."])                          # doctest: +SKIP
        [{'label': 'good', 'score': 0.98, 'labels': ['bad', 'good'], 'scores': [0.02, 0.98]}]
    """

    def __init__(self, directory: str | Path, *, verify: bool = False):
        self.directory = saved_model(directory)
        information = self.directory / INFORMATION
        self.information: dict[str, Any] = read_json(information) if information.is_file() else {}
        self._loaded = _load(self.directory)
        self._function = self._loaded.signatures.get("serving_default")
        if self._function is None:
            raise InputError(f"{self.directory} has no signature serving_default; export it with tfbert")
        found = self._function.structured_input_signature[1]
        if any(spec.dtype != tf.string or spec.shape.rank not in (1, 2) for spec in found.values()):
            raise InputError(
                f"{self.directory}: serving_default does not take texts (string [B] or [B, C]); export it with tfbert"
            )
        #: The names of the inputs, in the order in which a tuple of texts gives them.
        self.inputs: tuple[str, ...] = tuple(self.information.get("inputs", ())) or tuple(found)
        if set(self.inputs) != set(found):
            raise InputError(
                f"{information} names other inputs than the SavedModel beside it; the files are of different exports"
            )
        self._shapes = {name: found[name].shape.as_list() for name in self.inputs}
        # A loaded signature has forgotten the order in which the task gives its outputs.
        self.outputs = [
            name for name in self.information.get("outputs", ()) if name in self._function.structured_outputs
        ]
        self.outputs += sorted(set(self._function.structured_outputs) - set(self.outputs))
        if verify:
            self.verify()

    def __call__(self, texts, *, batch_size: int = 32) -> list[dict[str, Any]] | dict[str, Any]:
        """Answers texts.

        Lone surrogates in a text are replaced by U+FFFD, and so is what is not UTF-8 in bytes.

        Args:
            texts: a list (any iterable) of rows: a str, or for a model with several inputs a tuple of str in the order of `inputs`, or
                a dict by input name. One str alone gives one answer instead of a list.
            batch_size: rows computed at once (default 32).

        Returns:
            One dict per row: output name -> str, float, bool or a list of them, as in the `predictions` of TF Serving.

        Raises:
            InputError: a row that is not of that form, with its number.
        """
        if isinstance(texts, str | bytes):
            return self([texts], batch_size=batch_size)[0]
        if isinstance(texts, Mapping):
            raise InputError(f"texts is one dict; pass a list of dicts with {', '.join(self.inputs)}")
        return self._answers([self._row(row, f"row {i}") for i, row in enumerate(texts, 1)], batch_size)

    def stream(self, rows: Iterable, *, window: int = 4096, batch_size: int = 32) -> Iterator[dict[str, Any]]:
        """Answers rows as they come, in their order, and holds few of them at a time.

        Rows of like length within a window are computed together. The windows grow from one batch to `window`, so the first answers
        come soon. A row is read when its window begins, not before.

        Args:
            rows: any iterable of rows, such as `sources.stream("reviews.csv")`, a file of any size. None among the rows has those
                answered that have come so far: for a source that is slow at times.
            window: the rows that are read before they are answered, at most (default 4096).
            batch_size: rows computed at once (default 32).

        Yields:
            One dict per row, as calling the predictor gives them.

        Raises:
            InputError: a row that is not of that form, with its place; once the rows before it are answered.

        Example:
            >>> for answer in predictor.stream(sources.stream("reviews.csv", columns={"text": "review"})):  # doctest: +SKIP
            ...     print(answer["label"])
        """
        for part in windows(self._checked(rows), first=batch_size, most=window):
            yield from self._answers(part, batch_size)

    def _checked(self, rows: Iterable) -> Iterator[dict[str, Any] | None]:
        number = 0
        for row in rows:
            number += row is not None
            place = rows.last.where(0) if isinstance(rows, Stream) else f"row {number}"
            yield None if row is None else self._row(row, place)

    def _answers(self, columns: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        lengths = [
            sum(len(text) for value in row.values() for text in ([value] if isinstance(value, bytes) else value))
            for row in columns
        ]
        order = sorted(range(len(columns)), key=lengths.__getitem__)
        answers: list[dict[str, Any]] = [{}] * len(columns)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for i, answer in zip(chosen, self._run([columns[i] for i in chosen]), strict=True):
                answers[i] = answer
        return answers

    def verify(self) -> None:
        """Compares the answers to the stored texts with those of the day of export; raises InputError where they differ."""
        golden = self.information.get("golden")
        if not golden:
            raise InputError(f"{self.directory / INFORMATION} holds no texts to verify with; export again with tfbert")
        answers = self([row["inputs"] for row in golden])
        limit = _BFLOAT16_TOLERANCE if self.information.get("precision") == "bfloat16" else _GOLDEN_TOLERANCE
        for row, answer in zip(golden, answers, strict=True):
            if not _alike(row["answer"], answer, limit):
                raise InputError(
                    f"{self.directory} answers {answer} to {row['inputs']}, and answered {row['answer']} when it was exported; "
                    "the files have changed, copy or export again"
                )

    def _run(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        tensors = self._function(**feeds(batch, self._shapes))
        return rows({name: tensors[name].numpy() for name in self.outputs})

    def _row(self, row, place: str) -> dict[str, Any]:
        """The UTF-8 bytes of a row's texts, by input."""
        found = row
        if isinstance(row, Mapping):
            for name in self.inputs:
                if name not in row:
                    have = ", ".join(map(repr, row))
                    raise InputError(f"{place} has no {name!r}; it has {have}.{suggest(name, row)}")
            found = tuple(row[name] for name in self.inputs)
        values = (found,) if isinstance(found, str | bytes) else found
        wanted = described(self._shapes)
        if isinstance(values, tuple | list) and len(values) != len(self.inputs):
            raise InputError(f"{place} has {len(values)} texts; the model takes {wanted}")
        good = isinstance(values, tuple | list)
        if not good or not all(fits(*pair, (str, bytes)) for pair in zip(values, self._shapes.values())):
            raise InputError(f"{place} is {row!r}; expected text, a tuple of texts or a dict with {wanted}")
        return {name: _utf8(value) for name, value in zip(self.inputs, values)}


def _utf8(text):
    if isinstance(text, list | tuple):
        return [_utf8(item) for item in text]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates, which JSON with half an emoji gives
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def _load(directory: Path):
    # Its import registers the operations with which exports tokenize.
    if not tf_text.__version__:
        raise InputError("tensorflow_text is damaged; install it again")
    try:
        return tf.saved_model.load(str(directory))
    except (
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        tf.errors.OpError,
    ) as error:  # what damage of each file raises
        first = str(error).strip().split("\n")[0]
        raise InputError(f"cannot load {directory}: {first}; the files are damaged or of a newer TensorFlow") from error


def _alike(expected, got, limit: float) -> bool:
    if isinstance(expected, Mapping):
        return expected.keys() == got.keys() and all(
            _alike(value, got[name], limit) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return len(expected) == len(got) and all(_alike(*pair, limit) for pair in zip(expected, got))
    if isinstance(expected, float):
        return bool(np.isclose(expected, got, rtol=limit, atol=limit))
    return expected == got

"""The tokenized data set as NumPy arrays: what a task makes of examples, and what the pipeline makes batches of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbert import losses, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.tokenization.truncation import keep, longest_first

# Examples that are tokenized and cut at a time.
COLLECTED = 512
# The fields of Rows with a value for each token.
ALIGNED = ("piece", "owned", "start", "end", "word", "cls", "target", "label")
FILL = {"target": losses.IGNORED}  # what stands in padding, where it is not 0


Ragged = tuple[
    np.ndarray, np.ndarray
]  # values [total], row_splits int64 [rows + 1]: row i is values[row_splits[i]:row_splits[i + 1]]


@dataclasses.dataclass(frozen=True)
class Features:
    """The tokenized data set as NumPy arrays: N examples in R rows, a row being what the model reads at once.

    Most examples are one row. A long text that is cut into windows has several, and so has a text with its choices or its paraphrase;
    the rows of an example stand side by side.

    Args:
        ragged: name of a model's input -> its int32 values and the rows' splits, the same for all.
        padding: name -> the int32 that fills rows up to their batch's length.
        targets: array [N, ...], a dict of such by the name of the output, or a Ragged, [total] or [total, K], whose rows
            are filled up with losses.IGNORED; with `alone` of R, not N, rows. None where there is nothing to learn.
        weights: float32 [N] (with `alone` [R]), or None.
        examples: int64 [N + 1], the rows' splits: example i has the rows examples[i]:examples[i + 1]. None: a row each.
        alone: whether training draws rows, each with a target of its own; else it draws examples with all their rows (default).
        numbered: whether the model takes the input "example", int32 [rows]: the number of each row's example in the batch.
        aligned: name of a field of `Rows` -> values beside the tokens, which `task.infer` needs and the model does not.
        masking: draws the targets of rows, which are `alone`, anew for each epoch (see `masking.Masking`), from "word" in `aligned`, which
            has -1 for what is no text; or the rows as well (see `pairing.PairedMasking`), which then are as long as here or shorter. A row
            weighs as many times its weight as it has targets.
        beside: name of a further input -> (rows int64 [b], epoch int64, width int64) -> tensor [b, ...] of these rows, padded to `width`:
            what is not kept in memory, such as a `FrozenStates`.
        written: whether targets are tokens, of which each is chosen among all, by a head that is the word embeddings.
    """

    ragged: dict[str, Ragged]
    padding: dict[str, int]
    targets: Any = None
    weights: np.ndarray | None = None
    examples: np.ndarray | None = None
    alone: bool = False
    numbered: bool = False
    aligned: dict[str, Ragged] = dataclasses.field(default_factory=dict)
    masking: Callable | None = None
    beside: dict[str, Callable] = dataclasses.field(default_factory=dict)
    written: bool = False

    @property
    def lengths(self) -> np.ndarray:
        """The tokens of each row, int64 [R]."""
        return np.diff(next(iter(self.ragged.values()))[1])

    @property
    def draws(self) -> np.ndarray:
        """The tokens of the longest row of each thing that training draws, a row or an example: int64."""
        if self.examples is None or self.alone or len(self.examples) < 2:
            return self.lengths
        return np.maximum.reduceat(self.lengths, self.examples[:-1])

    @property
    def even(self) -> bool:
        """Whether all that training draws has as many rows and targets, so that batches can have one shape."""
        return self.masking is None and (self.alone or len(np.unique(np.diff(self.example_splits))) <= 1)

    @property
    def example_splits(self) -> np.ndarray:
        """int64 [N + 1], where there is a row each too."""
        return np.arange(len(self.lengths) + 1) if self.examples is None else self.examples


def pieces_in_use(features: Features) -> np.ndarray | None:
    """The ids that rows and their padding hold, ascending, int64: the rows of the word embeddings that training can change.

    None where tokens are to be guessed: every row is then among those that are chosen from.
    """
    if features.masking is not None or features.written:
        return None
    return np.union1d(features.ragged["input_ids"][0], features.padding["input_ids"]).astype(np.int64)


def collect(rows_of, columns: Mapping[str, Sequence], *, padding: Mapping[str, int]) -> dict[str, Any]:
    """Runs a function from texts to `Rows` over a data set and returns what it gave as the fields of `Features`.

    Args:
        rows_of: ({name: string [b, ...]}) -> Rows; called with some hundred examples at a time.
        columns: name -> the N texts (or lists of texts) of the data set.
        padding: the names of the model's inputs that are wanted, with what fills them up.

    Returns:
        {"ragged", "padding", "examples", "aligned"}, for `Features(**collect(...))`.
    """
    parts: dict[str, list[np.ndarray]] = {}
    lengths, sizes = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    count = len(next(iter(columns.values())))
    for first in range(0, count, COLLECTED):
        rows = rows_of({name: tf.constant(column[first : first + COLLECTED]) for name, column in columns.items()})
        mask = rows.ids["attention_mask"].numpy() > 0
        lengths.append(mask.sum(1))
        sizes.append(np.bincount(rows.example.numpy(), minlength=int(rows.count)))
        found = {name: rows.ids[name] for name in padding}
        found |= {name: getattr(rows, name) for name in ALIGNED if getattr(rows, name) is not None}
        for name, tensor in found.items():
            parts.setdefault(name, []).append(tensor.numpy()[mask])
    splits = np.cumsum(np.concatenate(lengths))
    tables = {name: (np.concatenate(chunks), splits) for name, chunks in parts.items()}
    empty = (np.zeros(0, np.int32), splits)
    return {
        "ragged": {name: tables.get(name, empty) for name in padding},
        "padding": dict(padding),
        "examples": np.cumsum(np.concatenate(sizes)),
        "aligned": {name: table for name, table in tables.items() if name in ALIGNED},
    }


def cut_documents(
    pieces, texts: Sequence[str], source: str, *, padding: Mapping[str, int], max_length: int
) -> dict[str, Any]:
    """Cuts each text into full rows and one that is shorter, as `collect` gives them; aligned is "word", -1 where there is no text.

    Args:
        pieces: `tokenization.RustPieces`.
        texts: N documents.
        source: what they are called, for messages.
        padding: as of `collect`.
        max_length: tokens of a row, special tokens included.

    Raises:
        InputError: there is no token in any of them.
    """

    def cut(texts):
        return tokenization.windows(pieces.template, pieces.ids_and_offsets(texts["text"]), max_length=max_length)

    found = collect(cut, {"text": texts}, padding=padding)
    (piece, splits), (word, _) = (found["aligned"][name] for name in ("piece", "word"))
    if not (piece >= 0).any():
        raise InputError(f"{source}: there is no token of text in it; give a text that has words")
    return {**found, "aligned": {"word": (np.where(piece >= 0, word, -1), splits)}}


def cut_pairs(
    pieces, texts: Sequence[str], pairs: Sequence[str], *, padding: Mapping[str, int], max_length: int
) -> dict[str, Any]:
    """Puts each text and the one that goes with it into a row, the longer cut first, as `collect` gives them; aligned is "word".

    Args:
        pieces: `tokenization.RustPieces`.
        texts: N first texts.
        pairs: N second texts.
        padding: as of `collect`.
        max_length: tokens of a row, special tokens included.
    """

    def cut(columns):
        found = [pieces.ids_and_offsets(columns[name]) for name in ("text", "text_pair")]
        lengths = [tf.cast(each.ids.row_lengths(), tf.int32) for each in found]
        room = longest_first(*lengths, max_length - pieces.template.specials(pair=True))
        ids, _ = pieces.template.lay(*(keep(each.ids, own, "head") for each, own in zip(found, room, strict=True)))
        # The template's own tokens are not below 0: so words are told from them.
        below = (each.word.with_values(-1 - each.word.values) for each in found)
        words, _ = pieces.template.lay(*(keep(each, own, "head") for each, own in zip(below, room, strict=True)))
        word = tf.maximum(-1 - words["input_ids"], -1)
        return tokenization.Rows(ids=ids, example=tf.range(tf.size(room[0])), count=tf.size(room[0]), word=word)

    return collect(cut, {"text": texts, "text_pair": pairs}, padding=padding)


def merged(parts: Sequence[tuple[np.ndarray, dict[str, Any]]]) -> dict[str, Any]:
    """Puts what `collect` gave for parts of a data set together.

    Args:
        parts: the numbers of a part's examples, ascending, int64 [N'], and what was collected for them; each example is in one part.

    Example:
        >>> one, two = ({"padding": {}, "aligned": {}, "ragged": {"ids": (np.array(values), np.array(splits))}, "examples": np.array(rows)}
        ...             for values, splits, rows in (([1, 2, 3], [0, 2, 3], [0, 2]), ([7, 8, 9], [0, 1, 3], [0, 1, 2])))
        >>> both = merged([(np.array([1]), one), (np.array([0, 2]), two)])
        >>> both["ragged"]["ids"][0].tolist(), both["ragged"]["ids"][1].tolist(), both["examples"].tolist()
        ([7, 1, 2, 3, 8, 9], [0, 1, 3, 4, 6], [0, 1, 3, 4])
    """
    example = np.concatenate([np.repeat(numbers, np.diff(found["examples"])) for numbers, found in parts])
    order = np.argsort(example, kind="stable")
    joined: dict[str, Any] = {"padding": parts[0][1]["padding"], "ragged": {}, "aligned": {}}
    for kind in ("ragged", "aligned"):
        for name in parts[0][1][kind]:
            values, splits = zip(*(found[kind][name] for _, found in parts), strict=True)
            lengths = np.concatenate([np.diff(each) for each in splits])
            begins = np.cumsum(lengths) - lengths
            after = np.concatenate([[0], np.cumsum(lengths[order])])
            source = np.arange(after[-1]) + np.repeat(begins[order] - after[:-1], lengths[order])
            joined[kind][name] = (np.concatenate(values)[source], after)
    return {**joined, "examples": np.concatenate([[0], np.cumsum(np.bincount(example))])}

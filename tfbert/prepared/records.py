"""Features -> records of tf.train.Example, one for each thing that training draws; and a window of records -> tensors again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features
from tfbert.pipeline import Tables

# The names of a record's features; NAME stands for an input, an output or a field of `Rows`.
#   lengths          tokens of each of its rows, int64 [r]
#   ids/NAME         the rows of an input, one after the other, int64
#   aligned/NAME     values beside the tokens, int64
#   target/NAME      its target, int64 or float; one without a name is target/
#   weight           its weight in the loss, float
#   example          the example itself as JSON, where it was asked for: of the first record of each example
KEPT_FOR_MASKS = ("word",)  # of what is aligned, what training reads


@dataclasses.dataclass(frozen=True)
class Target:
    """What a target looks like.

    Args:
        dtype: "int32" or "float32".
        shape: of one record's target, or, of a ragged one, of each token's.
        ragged: whether there is one for each token.
    """

    dtype: str
    shape: tuple[int, ...]
    ragged: bool


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is in the records of a task, as the manifest tells it.

    Args:
        padding: name of an input -> what fills rows up.
        alone: whether a record is one row with a target of its own; else an example with all its rows.
        numbered: as of `Features`.
        written: as of `Features`.
        masked: whether targets are drawn anew for each epoch.
        rows_each: the rows of every record, where all have as many; else None.
        targets: output -> Target; "" where there is one output alone.
        weights: whether records have weights.
        aligned: the fields of `Rows` beside the tokens from which masks are drawn.
    """

    padding: dict[str, int]
    alone: bool
    numbered: bool
    written: bool
    masked: bool
    rows_each: int | None
    targets: dict[str, Target]
    weights: bool
    aligned: tuple[str, ...] = ()

    @classmethod
    def of(cls, features: Features) -> Layout:
        """That of features which hold rows.

        Raises:
            InputError: their masks are drawn from all of the data, which a stream does not hold.
        """
        if features.masking is not None:
            features.masking.over(1, 1)
        sizes = np.unique(_sizes(features))
        return cls(
            padding={name: int(value) for name, value in features.padding.items()},
            alone=features.alone,
            numbered=features.numbered,
            written=features.written,
            masked=features.masking is not None,
            rows_each=int(sizes[0]) if len(sizes) == 1 else None,
            targets={name: _target(value) for name, value in _named(features.targets).items()},
            weights=features.weights is not None,
            aligned=tuple(name for name in KEPT_FOR_MASKS if features.masking and name in features.aligned),
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        targets = {
            name: Target(target["dtype"], tuple(target["shape"]), target["ragged"])
            for name, target in value["targets"].items()
        }
        return cls(**{**value, "targets": targets, "aligned": tuple(value["aligned"])})

    def joined(self, other: Layout, where: str) -> Layout:
        """The layout of this part of the data and another one together; parts that differ are an InputError that names `where`."""
        rows_each = self.rows_each if self.rows_each == other.rows_each else None
        if dataclasses.replace(other, rows_each=self.rows_each) != self or (
            rows_each is None and not self.alone and not self.numbered
        ):
            raise InputError(f"{where}: rows have other fields than those before; every row needs the same")
        return dataclasses.replace(self, rows_each=rows_each)

    def features(self, masking=None) -> Features:
        """The same as `Features` of no row."""
        none = (np.zeros(0, np.int32), np.zeros(1, np.int64))
        return Features(
            ragged=dict.fromkeys(self.padding, none),
            padding=self.padding,
            examples=np.zeros(1, np.int64),
            alone=self.alone,
            numbered=self.numbered,
            written=self.written,
            masking=masking,
        )


def _named(targets) -> dict[str, Any]:
    if targets is None:
        return {}
    return targets if isinstance(targets, dict) else {"": targets}


def _target(value) -> Target:
    ragged = isinstance(value, tuple)
    array = value[0] if ragged else np.asarray(value)
    kind = "float32" if np.issubdtype(array.dtype, np.floating) else "int32"
    return Target(kind, tuple(int(size) for size in array.shape[1:]), ragged)


def _sizes(features: Features) -> np.ndarray:
    """The rows of each thing that is drawn, int64."""
    return np.ones(len(features.draws), np.int64) if features.alone else np.diff(features.example_splits)


def records(features: Features, rows_as_json: list[bytes] | None = None) -> Iterator[bytes]:
    """One serialized tf.train.Example for each thing that training draws, in their order.

    Args:
        features: as a task gives them, with targets.
        rows_as_json: the examples themselves, to be kept beside; None keeps nothing.
    """
    splits = next(iter(features.ragged.values()))[1]
    sizes = _sizes(features)
    begins = np.cumsum(sizes) - sizes
    example = (
        np.searchsorted(features.example_splits, begins, side="right") - 1
    )  # of each draw the number of its example
    first = features.example_splits[example] == begins
    aligned = {name: features.aligned[name] for name in KEPT_FOR_MASKS if features.masking and name in features.aligned}
    targets = _named(features.targets)
    for i, (begin, size) in enumerate(zip(begins.tolist(), sizes.tolist(), strict=True)):
        tokens = slice(splits[begin], splits[begin + size])
        found = {"lengths": np.diff(splits[begin : begin + size + 1])}
        found |= {f"ids/{name}": values[tokens] for name, (values, _) in features.ragged.items()}
        found |= {f"aligned/{name}": values[tokens] for name, (values, _) in aligned.items()}
        for name, target in targets.items():
            if isinstance(target, tuple):
                target, own = target
                found[f"target/{name}"] = target[own[i] : own[i + 1]].reshape(-1)
            else:
                found[f"target/{name}"] = np.reshape(target[i], -1)
        if features.weights is not None:
            found["weight"] = np.reshape(features.weights[i], -1).astype(np.float32)
        kept = {} if rows_as_json is None or not first[i] else {"example": rows_as_json[example[i]]}
        yield record(found, kept)


def record(arrays: Mapping[str, np.ndarray], texts: Mapping[str, bytes] | None = None) -> bytes:
    """A serialized tf.train.Example of one-dimensional arrays of whole numbers or floats, and of bytes.

    Example:
        >>> tf.train.Example.FromString(record({"lengths": np.array([2])})).features.feature["lengths"].int64_list.value
        [2]
    """
    found = {}
    for name, array in arrays.items():
        values = array.tolist()
        if np.issubdtype(array.dtype, np.floating):
            found[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            found[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    for name, text in (texts or {}).items():
        found[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
    return tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString(deterministic=True)


def parse(layout: Layout, serialized) -> dict[str, Any]:
    """The tensors of records.

    Args:
        layout: what is in them.
        serialized: string [N].

    Returns:
        A dict of tensors: "lengths", int64 of all rows; "sizes", int64 [N], the rows of each record; and by its name in the record what
        else there is, flat: of targets that are not ragged [N, ...], of ragged ones also their row lengths, "lengths/target/NAME".
    """
    ragged = {"lengths": tf.int64, **{f"ids/{name}": tf.int64 for name in layout.padding}}
    ragged |= {f"aligned/{name}": tf.int64 for name in layout.aligned}
    kinds = {f"target/{name}": target for name, target in layout.targets.items()}
    ragged |= {name: tf.float32 if of.dtype == "float32" else tf.int64 for name, of in kinds.items()}
    wanted = {name: tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64) for name, dtype in ragged.items()}
    if layout.weights:
        wanted["weight"] = tf.io.FixedLenFeature([], tf.float32)
    read = tf.io.parse_example(serialized, wanted)
    found = {"lengths": read["lengths"].values, "sizes": read["lengths"].row_lengths()}
    for name, table in read.items():
        if name == "weight":
            found[name] = table
        elif name in kinds:
            of = kinds[name]
            found[name] = tf.cast(tf.reshape(table.values, [-1, *of.shape]), of.dtype)
            if of.ragged:
                found[f"lengths/{name}"] = table.row_lengths() // int(np.prod(of.shape, dtype=np.int64))
        elif name != "lengths":
            found[name] = tf.cast(table.values, tf.int32)
    return found


def tables(features: Features, layout: Layout, window: Mapping[str, Any], numbers) -> Tables:
    """What batches are put together from, of the records that `parse` read.

    Args:
        features: of no row, see `Layout.features`.
        layout: what is in the records.
        window: what `parse` gave.
        numbers: int64 [R], the rows' numbers in the whole data set.
    """

    def of_rows(name):
        return tf.RaggedTensor.from_row_lengths(window[name], window["lengths"], validate=False)

    def target(name, of):
        if not of.ragged:
            return window[f"target/{name}"]
        lengths = window[f"lengths/target/{name}"]
        return tf.RaggedTensor.from_row_lengths(window[f"target/{name}"], lengths, validate=False)

    targets = {name: target(name, of) for name, of in layout.targets.items()}
    rows = tf.range(tf.size(window["lengths"], tf.int64), dtype=tf.int64)
    return Tables(
        features,
        ragged={name: of_rows(f"ids/{name}") for name in layout.padding},
        by_example=tf.RaggedTensor.from_row_lengths(rows, window["sizes"], validate=False),
        aligned={name: of_rows(f"aligned/{name}") for name in layout.aligned},
        targets=targets.get("", targets or None),
        weights=window.get("weight"),
        numbers=numbers,
    )

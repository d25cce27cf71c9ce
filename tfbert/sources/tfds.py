"""TensorFlow Datasets that are already prepared on this machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError, suggest
from tfbert.sources.columns import checked
from tfbert.sources.examples import Examples, counted


def read_tfds(
    name: str, *, split: str, data_dir: str | os.PathLike | None = None, columns: Mapping[str, str] | None = None
) -> Examples:
    """Reads a split of a TensorFlow Dataset, in the order of its files; nothing is downloaded.

    Bytes are decoded as UTF-8, and class labels become their names. A row whose class label is -1, which is how these
    data sets mark hidden labels, has no such field.

    Args:
        name: the data set, with its configuration where it has several, such as "glue/sst2".
        split: such as "train", "test[:10%]" or "train+validation".
        data_dir: where prepared data sets lie; None for TFDS's own folder, ~/tensorflow_datasets.
        columns: from field to feature, such as {"text": "sentence"}; None keeps every name.

    Raises:
        InputError: tensorflow_datasets is not installed, or the data set or split is unknown or not prepared.

    Example:
        >>> read_tfds("glue/sst2", split="train", data_dir="/nowhere")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: tfds:glue/sst2: not prepared in /nowhere; ...
    """
    try:
        tfds = importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        what = "needs tensorflow_datasets, which is not installed; pip install tensorflow-datasets"
        raise InputError(f"tfds:{name}: {what}") from error
    builder = _builder(tfds, name, data_dir)
    source = f"tfds:{name}:{split}"
    try:
        rows = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
    except (ValueError, KeyError, AssertionError) as error:
        known = list(builder.info.splits)
        there = ", ".join(map(repr, known))
        raise InputError(f"{source}: no split {split!r}; the splits are {there}.{suggest(split, known)}") from error
    except tf.errors.OpError as error:
        raise InputError(f"{source}: its files are damaged ({error.message}); prepare the data set again") from error
    features = builder.info.features
    if not hasattr(features, "items"):
        raise InputError(f"{source}: its rows are not dicts of named features; tfbert cannot tell its fields")
    notes = [note for field, feature in features.items() for note in _name_labels(rows, field, feature, source)]
    return checked(rows, source, columns=columns, notes=notes)


def _builder(tfds, name: str, data_dir):
    try:
        builder = tfds.builder(name, data_dir=None if data_dir is None else os.fspath(data_dir), try_gcs=False)
    except ValueError as error:  # DatasetNotFoundError, or an unknown configuration
        known = tfds.list_builders()
        base = name.split("/")[0].split(":")[0]
        if base in known:
            known = [f"{base}/{config}" for config in tfds.builder_cls(base).builder_configs]
        raise InputError(f"tfds:{name}: TFDS has no such data set.{suggest(name, known)}") from error
    if not builder.is_prepared():
        where = builder.data_dir_root if data_dir is None else data_dir
        raise InputError(
            f"tfds:{name}: not prepared in {where}; prepare it once, in Python: import tensorflow_datasets as tfds; "
            f"tfds.load({name!r}), or name the folder that holds it with data_dir"
        )
    return builder


def _name_labels(rows: list[dict], field: str, feature, source: str) -> list[str]:
    """Turns the class numbers in a field, or in its lists, into names; returns a note on hidden labels."""
    if not hasattr(feature, "int2str"):  # a ClassLabel has it, and so has a Sequence of them
        return []
    hidden = 0
    for row in rows:
        value = row.pop(field)
        if np.ndim(value):
            row[field] = [feature.int2str(int(number)) for number in value]
        elif value >= 0:
            row[field] = feature.int2str(int(value))
        else:
            hidden += 1
    return [f"{source}: {counted(hidden, 'row')} with a hidden {field} (-1)"] if hidden else []

"""TensorFlow Datasets that are already prepared on this machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping

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
        name: the data set, with its configuration where it has several, such as "glue/sst2"; or a folder that holds a prepared one, with
            its dataset_info.json, such as "data/glue/sst2/2.0.0" or one of gs://.
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
    split_of = Split(name, split, data_dir)
    return checked(list(split_of), split_of.source, columns=columns, notes=split_of.notes())


class Split:
    """A split of a TensorFlow Dataset, opened and not yet read: iterating gives its rows, plain dicts, as they come.

    Args:
        name, split, data_dir: as for `read_tfds`.
    """

    def __init__(self, name: str, split: str, data_dir: str | os.PathLike | None = None):
        try:
            self._tfds = importlib.import_module("tensorflow_datasets")
        except ImportError as error:
            what = "needs tensorflow_datasets, which is not installed; pip install tensorflow-datasets"
            raise InputError(f"tfds:{name}: {what}") from error
        builder = _builder(self._tfds, name, data_dir)
        self.source = f"tfds:{name}:{split}"
        try:
            self._data = builder.as_dataset(split=split, shuffle_files=False)
            self._count = builder.info.splits[split].num_examples
        except (ValueError, KeyError, AssertionError) as error:
            known = list(builder.info.splits)
            there = ", ".join(map(repr, known))
            raise InputError(
                f"{self.source}: no split {split!r}; the splits are {there}.{suggest(split, known)}"
            ) from error
        except tf.errors.OpError as error:
            raise self._damaged(error) from error
        if not hasattr(builder.info.features, "items"):
            raise InputError(f"{self.source}: its rows are not dicts of named features; tfbert cannot tell its fields")
        # A ClassLabel has int2str, and so has a Sequence of them.
        self._labels = {field: f for field, f in builder.info.features.items() if hasattr(f, "int2str")}
        self._hidden = dict.fromkeys(self._labels, 0)
        self._read = 0

    def __iter__(self) -> Iterator[dict]:
        try:
            for row in self._tfds.as_numpy(self._data):
                self._read += 1
                yield self._with_names(row)
        except tf.errors.OpError as error:
            raise self._damaged(error) from error

    def share(self) -> float:
        """Which part of it was read, 0 to 1."""
        return min(1.0, self._read / max(1, self._count))

    def notes(self) -> list[str]:
        """What was found odd, complete when the rows are at their end."""
        hidden = {field: count for field, count in self._hidden.items() if count}
        return [f"{self.source}: {counted(count, 'row')} with a hidden {field} (-1)" for field, count in hidden.items()]

    def _with_names(self, row: dict) -> dict:
        """The row with names in the place of the numbers of classes, in a field or in its lists."""
        for field, feature in self._labels.items():
            value = row.pop(field)
            if np.ndim(value):
                row[field] = [feature.int2str(int(number)) for number in value]
            elif value >= 0:
                row[field] = feature.int2str(int(value))
            else:
                self._hidden[field] += 1
        return row

    def _damaged(self, error: tf.errors.OpError) -> InputError:
        return InputError(f"{self.source}: its files are damaged ({error.message}); prepare the data set again")


def _builder(tfds, name: str, data_dir):
    if tf.io.gfile.exists(f"{name}/dataset_info.json"):
        return tfds.builder_from_directory(name)
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

"""tf_model.h5: the weights that Keras 2 wrote for Transformers' TensorFlow models, read as data and nothing else.

HDF5 can do more than hold numbers: it can point to other files, assemble datasets from them, and run filters from libraries. Only
datasets that lie in the file itself, stored plainly or with gzip, are read; all else is refused by name, before anything of it is read.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from tfbert.errors import InputError

NAME = "tf_model.h5"


@contextlib.contextmanager
def opened(file: Path) -> Iterator[h5py.File]:
    """Opens a file for reading; what HDF5 finds wrong with it is an InputError."""
    try:
        with h5py.File(file, "r") as source:
            yield source
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        first = str(error).split("\n")[0]
        raise InputError(f"{file} is not a whole HDF5 file ({first}); download or copy it again") from error


def datasets(source: h5py.File, file: Path) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """Yields, for each weight, its Keras name, its path in the file, and the dataset, checked but not read.

    Raises:
        InputError: no Keras weights, a link, a dataset that is not plain numbers in this very file.
    """
    layers = _names(source, "layer_names", file)
    if not layers:
        raise InputError(
            f"{file} has no layer_names; expected the weights that save_pretrained of a TensorFlow model writes"
        )
    for layer in layers:
        for name in _names(_child(source, layer, file), "weight_names", file):
            path = f"{layer}/{name}"
            found = source
            for part in path.split("/"):
                found = _child(found, part, file)
            yield name, path, _checked(found, path, file)


def values(source: h5py.File, path: str) -> np.ndarray:
    """Reads a dataset that `datasets` has checked."""
    return np.asarray(source[path][()])


def _names(group, attribute: str, file: Path) -> list[str]:
    """A list of names among the attributes; Keras parts a long one into attribute0, attribute1, ..."""
    attributes = group.attrs if isinstance(group, h5py.Group) else {}
    found: list = list(attributes.get(attribute, ()))
    for k in itertools.count():
        if f"{attribute}{k}" not in attributes:
            break
        found += list(attributes[f"{attribute}{k}"])
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found]
    for name in names:
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"{file}: {attribute} holds {name!r}; expected a path within the file")
    return names


def _child(group, name: str, file: Path):
    """What stands under a name, not through a link to elsewhere. A name of several parts is walked part by part."""
    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise InputError(f"{file}: {name!r} is named, but not there; download or copy the file again")
        if not isinstance(link, h5py.HardLink):
            raise InputError(
                f"{file}: {name!r} is a link to another place; tfbert reads weights in the file itself only"
            )
        group = group[part]
    return group


def _checked(found, path: str, file: Path) -> h5py.Dataset:
    problem = None
    if not isinstance(found, h5py.Dataset):
        problem = "is no dataset"
    elif found.external or found.is_virtual:
        problem = "lies in another file"
    elif found.dtype.kind not in "fiu":
        problem = f"has the type {found.dtype}"
    else:
        filters = found.id.get_create_plist()
        known = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
        kinds = [filters.get_filter(k)[0] for k in range(filters.get_nfilters())]
        if unknown := [kind for kind in kinds if kind not in known]:
            problem = f"is packed with the filter {unknown[0]}"
    if problem:
        raise InputError(f"{file}: {path} {problem}; tfbert reads plain or gzipped numbers in the file itself only")
    return found

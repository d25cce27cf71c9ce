"""Weight files of a checkpoint folder: safetensors, whole or in shards, or HDF5, read without running anything they say."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tfbert._compat import transformers
from tfbert.errors import InputError
from tfbert.files import read_json
from tfbert.models import hdf5
from tfbert.models.families import Family

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where one tensor lies: its file, its name there, and its shape in PyTorch's order.

    Args:
        file: the file.
        name: its name in the file.
        shape: its shape, as PyTorch has it.
        float: whether it holds floating-point numbers.
        turn: how Keras' matrix is turned to PyTorch's, in an HDF5 file; None in safetensors.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    float: bool
    turn: Any = None


def list_weights(folder: Path, family: Family) -> dict[str, Tensor]:
    """Lists a checkpoint's tensors by PyTorch name without the encoder's prefix, from the files' headers alone.

    Names of old checkpoints (`LayerNorm.gamma`, `LayerNorm.beta`) are given their present form.

    Args:
        folder: the checkpoint folder.
        family: the row of the table of families.

    Returns:
        Name -> Tensor, in the order of the files.

    Raises:
        InputError: no safetensors file, one that is damaged or is no safetensors file, an index that leads out of the folder, one
            name twice.
    """
    found: dict[str, Tensor] = {}
    for file in _files(folder):
        if file.name == hdf5.NAME:
            return _list_hdf5(file, family)
        with opened(file) as source:
            if (source.metadata() or {}).get("format", "pt") == "tf":
                raise InputError(
                    f"{file} has TensorFlow weight names; save it with tfbert, or with PyTorch's save_pretrained"
                )
            for name in source.keys():  # noqa: SIM118 - what is opened cannot be iterated
                tensor = source.get_slice(name)
                plain = canonical(name, family)
                if plain in found:
                    raise InputError(
                        f"{file}: the tensor {name} is there twice (also as {found[plain].name} in {found[plain].file.name})"
                    )
                found[plain] = Tensor(file, name, tuple(tensor.get_shape()), tensor.get_dtype() in FLOATS)
    if not found:
        raise InputError(f"{folder / WHOLE} holds no tensor; restore the file from its source")
    return found


def _list_hdf5(file: Path, family: Family) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with hdf5.opened(file) as source:
        for keras_name, path, dataset in hdf5.datasets(source, file):
            names = transformers.modeling_tf_pytorch_utils
            name, turn = names.convert_tf_weight_name_to_pt_weight_name(keras_name, tf_weight_shape=dataset.shape)
            turn = _turn(name, turn, family)
            shape = turned(np.broadcast_to(np.zeros((), np.bool_), dataset.shape), turn, to_tf=False).shape
            found[canonical(name, family)] = Tensor(file, path, tuple(shape), dataset.dtype.kind == "f", turn)
    return found


def canonical(name: str, family: Family) -> str:
    """Returns a weight's PyTorch name without the encoder's prefix, in today's spelling.

    Example:
        >>> from tfbert.models.families import BERT
        >>> canonical("bert.embeddings.LayerNorm.gamma", BERT)
        'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix(family.encoder)
    for other, own in family.renamed.items():
        name = name.replace(other, own)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def read_weights(tensors: dict[str, Tensor]) -> Iterator[tuple[str, np.ndarray]]:
    """Reads tensors one by one as float32; a value that is not finite is an InputError that names the tensor and its file.

    Args:
        tensors: a part of what `list_weights` returned.

    Yields:
        The name and the values, float32 of the tensor's shape; float16 and bfloat16 are widened exactly.
    """
    for file in dict.fromkeys(tensor.file for tensor in tensors.values()):
        packed = file.name == hdf5.NAME
        with hdf5.opened(file) if packed else opened(file) as source:
            for name, tensor in tensors.items():
                if tensor.file != file:
                    continue
                if not tensor.float:
                    kind = source[tensor.name].dtype if packed else source.get_slice(tensor.name).get_dtype()
                    raise InputError(
                        f"{file}: tensor {tensor.name} has the type {kind}; tfbert reads {', '.join(FLOATS)}"
                    )
                raw = hdf5.values(source, tensor.name) if packed else source.get_tensor(tensor.name)
                with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused below
                    values = np.asarray(raw).astype(np.float32)
                if packed:
                    values = turned(values, tensor.turn, to_tf=False)
                if not np.isfinite(values).all():
                    bad = int(values.size - np.isfinite(values).sum())
                    raise InputError(
                        f"{file}: tensor {tensor.name} holds {bad} values that are not finite (NaN or infinity); the checkpoint is spoilt: "
                        "take one from before the training went wrong"
                    )
                yield name, values


def variables_of(model, family: Family) -> dict[str, tuple]:
    """Maps a built TF Transformers model's weights to PyTorch's names.

    Returns:
        Canonical name (see `canonical`) -> (the variable, how its matrix is turned between the two frameworks).
    """
    names = transformers.modeling_tf_pytorch_utils
    variables = {}
    for variable in model.weights:
        name, turn = names.convert_tf_weight_name_to_pt_weight_name(variable.name, tf_weight_shape=variable.shape)
        variables[canonical(name, family)] = (variable, _turn(name, turn, family))
    return variables


def _turn(name: str, turn, family: Family):
    """The family's own way to turn a weight, where it has one, else that of Transformers."""
    return next((own for end, own in family.turns.items() if name.endswith(end)), turn)


def turned(values: np.ndarray, turn, *, to_tf: bool) -> np.ndarray:
    """Turns a matrix from PyTorch's [outputs, inputs] to TensorFlow's [inputs, outputs], or back; leaves vectors and tables alone."""
    if callable(turn):
        return turn(values, to_tf)
    return transformers.modeling_tf_pytorch_utils.apply_transpose(turn, values, pt_to_tf=to_tf)


@contextlib.contextmanager
def opened(file: Path) -> Iterator:
    """Opens a safetensors file; the library checks its header against its length before anything is read."""
    try:
        with safe_open(file, framework="numpy") as source:
            yield source
    except SafetensorError as error:
        raise InputError(f"{file} is not a whole safetensors file ({error}); download or copy it again") from error
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}; restore the checkpoint's files") from error


def _files(folder: Path) -> list[Path]:
    """The files that hold the weights: the whole one, else those of the index, else Keras' HDF5."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if (folder / INDEX).is_file():
        return _shards(folder)
    if (folder / hdf5.NAME).is_file():
        return [folder / hdf5.NAME]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pkl", ".pt", ".pth", ".ckpt"))
    if pickles:
        raise InputError(
            f"{folder / pickles[0]} is a pickle, which can run code when it is read; convert it to safetensors where you trust it: "
            "AutoModel.from_pretrained(folder).save_pretrained(folder) in PyTorch Transformers"
        )
    raise InputError(f"{folder} has no {WHOLE}, no {INDEX} and no {hdf5.NAME}; choose a checkpoint that has one")


def _shards(folder: Path) -> list[Path]:
    """The files that the index names: plain names only, each in the folder itself (or in the hub's cache that the folder is part of)."""
    where = folder / INDEX
    index = read_json(where)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise InputError(
            f"{where}: expected an object weight_map from tensor names to file names; restore the file from its source"
        )
    place = folder.resolve()
    allowed = [place, place.parent.parent / "blobs"] if place.parent.name == "snapshots" else [place]
    files = []
    for name in sorted(set(names.values())):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\.safetensors", name):
            raise InputError(
                f"{where}: names the file {name!r}; expected the plain name of a .safetensors file in the same folder"
            )
        if (place / name).resolve().parent not in allowed:
            raise InputError(
                f"{where}: the file {name!r} is a link that leads out of the folder; copy the file itself there"
            )
        if not (place / name).is_file():
            raise InputError(f"{where}: the file {name!r} is missing; download or copy the checkpoint again")
        with opened(place / name) as file:
            inside = set(file.keys())
        listed = {tensor for tensor, file in names.items() if file == name}
        if inside != listed:
            odd = sorted(inside ^ listed)[0]
            raise InputError(
                f"{where}: tensor {odd} is {'in' if odd in inside else 'not in'} {name}, unlike the index says; copy both again"
            )
        files.append(folder / name)
    return files

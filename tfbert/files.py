"""Files that are either there, whole, or not there: atomic writes, hashes, and a lock on an output folder."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfbert.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no fcntl; there the lock is the file's existence alone
    fcntl = None


@contextlib.contextmanager
def told(path: str | Path, doing: str = "write") -> Iterator[None]:
    """Turns the operating system's refusals (full disk, no permission, ...) into an InputError that names the place.

    Example:
        >>> with told("/proc/version/x"):
        ...     open("/proc/version/x", "w")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: cannot write /proc/version/x: Not a directory; choose another place
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = _free_bytes(Path(path))
            room = f" ({free / 2**20:,.0f} MiB free)" if free is not None else ""
            raise InputError(f"cannot {doing} {path}: the disk is full{room}; free some space and run again") from error
        if number is None and not isinstance(error, OSError):
            raise
        said = getattr(error, "strerror", None) or error
        remedy = "choose another place" if doing == "write" else "check the path"
        raise InputError(f"cannot {doing} {path}: {said}; {remedy}") from error


def _number(error: Exception) -> int | None:
    """The operating system's number of an error; libraries in Rust (safetensors, tokenizers) have it in their message only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _free_bytes(path: Path) -> int | None:
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


@contextlib.contextmanager
def new_directory(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `path` that becomes `path` when the block ends well, and vanishes when it does not.

    The temporary name begins with "." and is not a number, so TensorFlow Serving never looks into it. Files are flushed to the disk
    before the rename, so a crash leaves either the old folder or the whole new one.

    Args:
        path: the folder to make; of a symbolic link the folder that it leads to.
        overwrite: replace a folder that is there (default False: InputError, unless it is empty).

    Raises:
        InputError: the folder is there, at the beginning or at the end; it is one that cannot be renamed; or the disk refuses.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "model"
        >>> with new_directory(place) as folder:
        ...     _ = (folder / "a.txt").write_text("whole")
        >>> (place / "a.txt").read_text()
        'whole'
    """
    check_replaceable(path)
    given, path = path, Path(os.path.realpath(path))
    if path.exists() and not overwrite:
        raise _exists(given)
    with told(given):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        prefix = f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
        try:
            folder.chmod(0o755)
            yield folder
            for file in folder.rglob("*"):
                if file.is_file():
                    _flush(file)
            _flush(folder)
            try:
                os.rename(folder, path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not overwrite:
                    raise _exists(given) from error
                _exchange(folder, path)
            _flush(path.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_replaceable(path: str | Path) -> None:
    """Raises InputError for a folder that no other can take the place of: a mount point, or one in which this process stands.

    Example:
        >>> check_replaceable(".")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: . is the current folder, which cannot be replaced; name a folder in it, such as ./model
    """
    real = os.path.realpath(path)
    what = "a mount point" if os.path.ismount(real) else "the current folder" if real == os.path.realpath(".") else None
    if what is not None:
        raise InputError(
            f"{path} is {what}, which cannot be replaced; name a folder in it, such as {os.path.join(path, 'model')}"
        )


def _exists(path: str | Path) -> InputError:
    return InputError(f"{path} exists already; choose another name or pass overwrite")


def _sweep(path: Path) -> None:
    """Deletes what processes of this machine that were killed while they wrote `path` have left beside it."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.tmp-{glob.escape(socket.gethostname())}-*-*"):
        process = folder.name.split("-")[-2]
        if process.isdigit() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _exchange(folder: Path, path: Path) -> None:
    """Puts `folder` in the place of `path`; the old content is left under the temporary name, for the caller to delete."""
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
    try:
        os.rename(path, old / "old")
        try:
            os.rename(folder, path)
        except OSError:
            os.rename(old / "old", path)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file in one piece: a reader sees the old file or the new one, never a half.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_text(place, "naïve")
        >>> place.read_text(encoding="utf-8")
        'naïve'
    """
    path = Path(path)
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.tmp-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def write_json(path: str | Path, value) -> None:
    """Writes `value` as indented JSON, in one piece (see `write_text`); NaN and infinity are refused, they are not JSON.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "metrics.json"
        >>> write_json(place, {"accuracy": 0.9})
        >>> json.loads(place.read_text())
        {'accuracy': 0.9}
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path):
    """Reads a JSON file; one that is missing or not JSON is an InputError that names it.

    Example:
        >>> read_json("nowhere/task.json")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: cannot read nowhere/task.json: No such file or directory; check the path
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); write it again or restore it from a backup") from error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "empty"
        >>> place.touch()
        >>> sha256(place)[:16]
        'e3b0c44298fc1c14'
    """
    digest = hashlib.sha256()
    with told(path, "read"), open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(directory: str | Path, lock: Path | None = None) -> Iterator[None]:
    """Holds an output folder for one run at a time; the lock dies with the process, so a killed run never blocks the next.

    Args:
        directory: the output folder.
        lock: the file that says so; None: `.NAME.lock` beside it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with locked(folder), locked(folder):  # doctest: +ELLIPSIS
        ...     pass
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: ... is in use by another run; wait for it or choose another output folder
    """
    lock = lock or Path(directory).parent / f".{Path(directory).name}.lock"
    made = [folder for folder in (lock.parent, *lock.parent.parents) if not folder.exists()]
    with told(directory):
        lock.parent.mkdir(parents=True, exist_ok=True)
    file = _locked_file(lock, directory)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()
        with contextlib.suppress(OSError):  # of a run that failed, folders that are empty still go again
            for folder in made:
                folder.rmdir()


def _locked_file(lock: Path, directory: str | Path):
    while True:
        with told(directory):
            file = open(lock, "a+")  # noqa: SIM115 - the lock lives as long as the file is open
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        except BlockingIOError:
            file.close()
            raise InputError(
                f"{directory} is in use by another run; wait for it or choose another output folder"
            ) from None
        file.close()  # its owner deleted it between our open and our lock: that lock holds nobody off


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

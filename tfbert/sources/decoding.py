"""A file's bytes, and its text: strict UTF-8 by default, gzip undone, anything that is not text refused by name."""

from __future__ import annotations

import codecs
import gzip
import os
import zlib
from pathlib import Path

from tfbert.errors import InputError, suggest
from tfbert.files import told
from tfbert.sources.examples import counted

# UTF-32 before UTF-16: the little-endian mark of the first begins with that of the second.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MAGIC = {
    b"\x1f\x8b": "a gzip file; let its name end in .gz",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"PAR1": "a Parquet file; let its name end in .parquet",
}


def check_file(path: str | os.PathLike) -> None:
    """Raises InputError where there is no such file (with the nearest name in its folder), or a folder stands there."""
    path = Path(path)
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a path cannot hold a NUL character")
    with told(path, "read"):
        if path.is_dir():
            inside = ", ".join(sorted(os.listdir(path))[:5]) or "empty"
            raise InputError(f"{path}: is a folder ({inside}); name a file in it")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; check the path")
        if not path.exists():
            raise InputError(f"{path}: there is no such file.{suggest(path.name, os.listdir(path.parent))}")


def load_bytes(path: str | os.PathLike) -> bytes:
    """The bytes of a file, decompressed where its name ends in .gz.

    Raises:
        InputError: the file is missing (the nearest name in its folder is told), a folder, unreadable, or damaged gzip.

    Example:
        >>> load_bytes("no_such_folder/train.csv")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: no_such_folder/train.csv: there is no folder no_such_folder; check the path
    """
    path = Path(path)
    check_file(path)
    with told(path, "read"):
        data = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged or cut-off gzip ({error}); download or compress it again") from error


def load_text(path: str | os.PathLike, encoding: str = "utf-8") -> tuple[str, list[str]]:
    """The text of a file, decoded once and strictly, and notes on what was changed.

    One leading byte-order mark is dropped; NUL characters are removed and counted; line ends are left as they are.

    Args:
        path: the file; .gz is decompressed.
        encoding: any that Python knows (default "utf-8").

    Raises:
        InputError: names the file, and for an invalid byte its line and its number in that line, counted from 1.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "train.csv"
        >>> _ = place.write_bytes(b"\\xef\\xbb\\xbftext\\ncaf\\xc3\\xa9\\n")
        >>> load_text(place)
        ('text\\ncafé\\n', [])
    """
    data = load_bytes(path)
    strict = codec_name(encoding) in ("utf-8", "utf-8-sig")
    if strict:
        refuse_other_formats(path, data)
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8" if strict else encoding)
    except UnicodeDecodeError as error:
        raise InputError(_invalid(path, data, error, encoding)) from error
    except (UnicodeError, LookupError) as error:
        raise InputError(f"{path}: cannot be decoded with encoding={encoding!r} ({error})") from error
    nuls = text.count("\0")
    if nuls * 10 > len(text):
        raise InputError(
            f"{path}: looks like a binary file ({nuls:,} of its {len(text):,} characters are NUL); if it is UTF-16, "
            "pass encoding='utf-16-le'"
        )
    notes = []
    if nuls:
        text = text.replace("\0", "")
        notes.append(f"{path}: {counted(nuls, 'NUL character')} removed")
    if marks := text.count("\ufeff"):
        notes.append(f"{path}: {counted(marks, 'byte-order mark')} (U+FEFF) inside the text, kept as it is")
    return text, notes


def codec_name(encoding: str) -> str:
    """Python's name of an encoding; one that it does not know is an InputError."""
    try:
        return codecs.lookup(encoding).name
    except (LookupError, TypeError, ValueError) as error:
        usual = "the usual ones are 'utf-8', 'latin-1' and 'cp1252'"
        raise InputError(f"encoding={encoding!r} is not one that Python knows; {usual}") from error


def refuse_other_formats(path, data: bytes) -> None:
    """Raises InputError where a file begins as UTF-16, an archive or another thing that is no UTF-8 does."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            command = f"iconv -f {name.lower()} -t utf-8 {path} > converted"
            raise InputError(f"{path}: is {name}; convert it: {command}, or pass encoding={name.lower()!r}")
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise InputError(f"{path}: is {what}")


def _invalid(path, data: bytes, error: UnicodeDecodeError, encoding: str) -> str:
    if b"\0" in data and codec_name(encoding)[:6] not in ("utf-16", "utf-32"):
        return f"{path}: looks like a binary file (it has NUL bytes and is not valid {encoding}); expected text"
    line = data.count(b"\n", 0, error.start) + 1
    column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
    return (
        f"{path}:{line} (byte {column}): {data[error.start]:#04x} is not valid {encoding} ({error.reason}); "
        "save the file as UTF-8, or pass its encoding, for instance encoding='latin-1'"
    )

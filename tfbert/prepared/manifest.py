"""What manifest.json says of prepared data: what they were made of and for, how many there are, and the bytes of each shard."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.prepared.records import Layout

FORMAT_VERSION = 1
NAME = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records.

    Args:
        file: its name in the folder.
        records: how many it holds: what training draws, a row or an example.
        rows: what the model reads at once.
        bytes: its size.
        sha256: of its bytes.
    """

    file: str
    records: int
    rows: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Counts:
    """How much of everything there is.

    Args:
        examples: rows of the source.
        records: what training draws.
        rows: what the model reads at once.
        tokens: real ones.
        lengths: int64 [longest + 1], how many records have a longest row of so many tokens.
        pieces: the ids that rows hold, ascending, int64; None where tokens are to be guessed.
        weights: the least and the largest weight of a record.
    """

    examples: int
    records: int
    rows: int
    tokens: int
    lengths: np.ndarray
    pieces: np.ndarray | None
    weights: tuple[float, float]

    def __add__(self, other: Counts) -> Counts:
        lengths = np.zeros(max(len(self.lengths), len(other.lengths)), np.int64)
        lengths[: len(self.lengths)] += self.lengths
        lengths[: len(other.lengths)] += other.lengths
        pieces = None if self.pieces is None or other.pieces is None else np.union1d(self.pieces, other.pieces)
        sums = (getattr(self, name) + getattr(other, name) for name in ("examples", "records", "rows", "tokens"))
        weights = min(self.weights[0], other.weights[0]), max(self.weights[1], other.weights[1])
        return Counts(*sums, lengths, pieces, weights)

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: int(getattr(self, name)) for name in ("examples", "records", "rows", "tokens")},
            "lengths": {str(length): int(self.lengths[length]) for length in np.flatnonzero(self.lengths)},
            "pieces": None if self.pieces is None else packed(self.pieces),
            "weights": list(self.weights),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Counts:
        lengths = np.zeros(max(map(int, value["lengths"]), default=0) + 1, np.int64)
        for length, count in value["lengths"].items():
            lengths[int(length)] = count
        sums = (value[name] for name in ("examples", "records", "rows", "tokens"))
        pieces = None if value["pieces"] is None else unpacked(value["pieces"])
        return cls(*sums, lengths, pieces, tuple(value["weights"]))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known of a folder of prepared data.

    Args:
        task: what the records were made for, as `Task.to_json` gives it, with every field filled.
        tokenizer: the hash of the tokenizer that made the ids (see `tokenizer_hash`).
        source: {"name", "sha256"} of the data: `sources.fingerprint` of its rows.
        layout: what is in a record.
        counts: how much of everything there is.
        kept: whether the examples themselves lie beside, as JSON.
        shards: the files, of equal numbers of records, or of one more or less: record i is in shard i % S, at the place i // S.
        versions: of the packages that made them; nothing depends on it.
    """

    task: dict[str, Any]
    tokenizer: str
    source: dict[str, str]
    layout: Layout
    counts: Counts
    kept: bool
    shards: tuple[Shard, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "task": self.task,
            "max_length": self.task["max_length"],
            "tokenizer_sha256": self.tokenizer,
            "source": self.source,
            "records": self.layout.to_json(),
            "counts": self.counts.to_json(),
            "examples_kept": self.kept,
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
            "versions": self.versions,
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Manifest:
        """Reads what `to_json` gave; another version, or what is no manifest, is an InputError that names `where`."""
        if not isinstance(value, dict) or "shards" not in value:
            raise InputError(f"{where} is not the manifest of prepared data; prepare the data again")
        version = value.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(
                f"{where}: format_version is {version!r}, this tfbert reads {FORMAT_VERSION}; prepare the data again, or install the "
                "tfbert that wrote it"
            )
        try:
            return cls(
                value["task"],
                value["tokenizer_sha256"],
                value["source"],
                Layout.from_json(value["records"]),
                Counts.from_json(value["counts"]),
                value["examples_kept"],
                tuple(Shard(**shard) for shard in value["shards"]),
                value["versions"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is damaged ({error!r}); prepare the data again") from error

    def digest(self) -> str:
        """The SHA-256 of all that a training depends on: records, their order in the shards, what they were made for."""
        value = {name: part for name, part in self.to_json().items() if name not in ("versions", "source")}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: str) -> Manifest:
    """The manifest of a folder, which may be one of gs:// or s3://.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = f"{folder}/{NAME}"
    try:
        with tf.io.gfile.GFile(path, "r") as file:
            text = file.read()
    except tf.errors.NotFoundError as error:
        raise InputError(
            f"{folder} holds no {NAME}: it is no folder that `tfbert prepare` wrote; check the path"
        ) from error
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; check the path") from error
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); prepare the data again or restore a backup") from error
    return Manifest.from_json(value, path)


def tokenizer_hash(tokenizer) -> str:
    """The SHA-256 of all by which a fast tokenizer turns texts into ids; truncation and padding, which `encode` decides, do not count.

    Example:
        >>> from tfbert.tokenization import load_tokenizer
        >>> len(tokenizer_hash(load_tokenizer("all-MiniLM-L6-v2")))
        64
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend |= {"truncation": None, "padding": None}
    backend["inputs"] = list(tokenizer.model_input_names)
    return hashlib.sha256(json.dumps(backend, sort_keys=True).encode()).hexdigest()


def packed(ids: Sequence[int]) -> str:
    """Ids as the hexadecimal digits of a bit each.

    Example:
        >>> packed([0, 2, 9]), unpacked("a040").tolist()
        ('a040', [0, 2, 9])
    """
    bits = np.zeros(int(max(ids, default=0)) + 1, np.uint8)
    bits[np.asarray(ids, np.int64)] = 1
    return np.packbits(bits if len(ids) else bits[:0]).tobytes().hex()


def unpacked(digits: str) -> np.ndarray:
    """What `packed` gave, ids ascending, int64."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))).astype(np.int64)


def histogram(lengths: np.ndarray) -> np.ndarray:
    """How many of the lengths are 0, 1, 2, ...: int64.

    Example:
        >>> histogram(np.array([1, 3, 1])).tolist()
        [0, 2, 0, 1]
    """
    return np.bincount(lengths, minlength=1).astype(np.int64)

"""Parts of prepared data: some thousand examples each, tokenized by themselves, whole or not there; and shards made of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfbert import features, files
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.prepared.manifest import Counts, Shard, histogram
from tfbert.prepared.records import Layout, records
from tfbert.sources import Examples, canonical
from tfbert.tasks import Task, by_name
from tfbert.tokenization import load_tokenizer

EXAMPLES, CHARACTERS = 4096, 4_000_000  # of a part, at most; a longer example is a part by itself
FRAME = 12, 4  # bytes around a record in a file: its length with a checksum before, a checksum behind
BUFFERED = 2**26  # bytes of all shards that are held before they are written


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished part.

    Args:
        file: its name in the folder of parts.
        source: the SHA-256 of its examples.
        sha256: of its bytes.
        counts: how much is in it; None where that is told of all parts together.
        layout: what is in a record.
    """

    file: str
    source: str
    sha256: str
    counts: Counts | None
    layout: Layout

    def to_json(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("file", "source", "sha256")}
        return {**own, "counts": self.counts.to_json(), "layout": self.layout.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Part:
        counts, layout = Counts.from_json(value["counts"]), Layout.from_json(value["layout"])
        return cls(value["file"], value["source"], value["sha256"], counts, layout)


@dataclasses.dataclass(frozen=True)
class Job:
    """What makes a part, in this process or another one.

    Args:
        task: with every field filled.
        checkpoint: of its tokenizer.
        place: the folder of parts.
        number: of the part, from 0.
        examples: those of the part.
        source: their SHA-256.
        keep: whether the examples are kept as well.
    """

    task: Task
    checkpoint: str
    place: Path
    number: int
    examples: Examples
    source: str
    keep: bool

    def to_json(self) -> dict[str, Any]:
        """As another process is told it."""
        own = {name: getattr(self, name) for name in ("checkpoint", "number", "source", "keep")}
        rows = self.examples
        lines = None if rows.lines is None else list(rows.lines)
        told = {"rows": list(rows), "source": rows.source, "lines": lines, "rows_at": list(rows.rows_at)}
        return {**own, "task": self.task.to_json(), "place": str(self.place), "examples": told}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """From what `to_json` gave."""
        task = by_name(value["task"]["task"]).from_json(value["task"])
        return cls(**{**value, "task": task, "place": Path(value["place"]), "examples": Examples(**value["examples"])})

    def __call__(self) -> Part:
        """Tokenizes and writes the part; its description comes last, and says that it is whole."""
        self.task.check(self.examples)
        found = self.task.features(_tokenizer(self.checkpoint), self.examples)
        layout = Layout.of(found)
        used = features.pieces_in_use(found)
        lengths = found.draws
        weights = (1.0, 1.0) if found.weights is None else (float(found.weights.min()), float(found.weights.max()))
        rows = len(found.lengths), int(found.lengths.sum())
        counts = Counts(len(self.examples), len(lengths), *rows, histogram(lengths), used, weights)
        texts = [canonical(row).rstrip() for row in self.examples] if self.keep else None
        path = self.place / f"{self.number:06}.tfrecord"
        with files.told(path), _writer(path) as writer:
            for record in records(found, texts):
                writer.write(record)
        part = Part(path.name, self.source, files.sha256(path), counts, layout)
        files.write_json(path.with_suffix(".json"), part.to_json())
        return part


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[Any]:
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield writer
    except tf.errors.OpError as error:
        raise InputError(f"cannot write {path}: {error.message}; choose another place") from error


@functools.lru_cache(maxsize=1)
def _tokenizer(checkpoint: str):
    return load_tokenizer(checkpoint)


def finished(place: Path, number: int, source: str) -> Part | None:
    """The part of that number, where it is there, whole, and made of these examples."""
    path = place / f"{number:06}.json"
    if not path.is_file():
        return None
    try:
        part = Part.from_json(files.read_json(path))
        whole = part.source == source and files.sha256(place / part.file) == part.sha256
    except (InputError, KeyError, TypeError, ValueError):
        return None
    return part if whole else None


def blocks(rows: Iterable[Examples]) -> Iterator[tuple[Examples, str]]:
    """Examples of one row each -> the examples of a part with the SHA-256 of their rows."""
    block: list[Examples] = []
    characters, digest = 0, hashlib.sha256()
    for row in rows:
        line = canonical(row[0])
        if block and (len(block) == EXAMPLES or characters + len(line) > CHARACTERS):
            yield _joined(block), digest.hexdigest()
            block, characters, digest = [], 0, hashlib.sha256()
        block.append(row)
        characters += len(line)
        digest.update(line)
    if block:
        yield _joined(block), digest.hexdigest()


def _joined(rows: Sequence[Examples]) -> Examples:
    lines = None if rows[0].lines is None else [row.lines[0] for row in rows]
    return Examples(
        [row[0] for row in rows], source=rows[0].source, lines=lines, rows_at=[row.rows_at[0] for row in rows]
    )


def merge(place: Path, parts: Sequence[Part], folder: Path, count: int) -> list[Shard]:
    """Deals the records of all parts to `count` shards in turn; the bytes of a record stay as TFRecordWriter wrote them.

    Args:
        place: the folder of parts.
        parts: in their order.
        folder: where the shards go.
        count: how many.
    """
    names = [f"part-{k:05}-of-{count:05}.tfrecord" for k in range(count)]
    dealt = _Dealt([folder / name for name in names])
    number = 0
    for part in parts:
        with files.told(place / part.file, "read"):
            data = memoryview((place / part.file).read_bytes())
        for frame in _frames(data):
            dealt.add(number % count, frame, part.layout.rows_each)
            number += 1
    dealt.flush()
    return [Shard(name, *dealt.about(k)) for k, name in enumerate(names)]


def _frames(data: memoryview) -> Iterator[memoryview]:
    """The records of a file with what is around each."""
    at, around = 0, sum(FRAME)
    while at < len(data):
        end = at + around + struct.unpack_from("<Q", data, at)[0]
        yield data[at:end]
        at = end


class _Dealt:
    """Files that grow side by side, few of them open at a time."""

    def __init__(self, paths: Sequence[Path]):
        self._paths, self._held, self._bytes = paths, [bytearray() for _ in paths], 0
        self._digests = [hashlib.sha256() for _ in paths]
        self._sizes, self._records, self._rows = ([0] * len(paths) for _ in range(3))
        for path in paths:
            path.touch()

    def add(self, shard: int, frame: memoryview, rows: int | None) -> None:
        self._held[shard] += frame
        self._bytes += len(frame)
        self._records[shard] += 1
        self._rows[shard] += _rows(frame[FRAME[0] : -FRAME[1]]) if rows is None else rows
        if self._bytes > BUFFERED:
            self.flush()

    def flush(self) -> None:
        for k, path in enumerate(self._paths):
            with files.told(path), open(path, "ab") as file:
                file.write(self._held[k])
            self._digests[k].update(self._held[k])
            self._sizes[k] += len(self._held[k])
            self._held[k] = bytearray()
        self._bytes = 0

    def about(self, shard: int) -> tuple[int, int, int, str]:
        """Records, rows, bytes and SHA-256 of a shard."""
        own = (numbers[shard] for numbers in (self._records, self._rows, self._sizes))
        return *own, self._digests[shard].hexdigest()


def _rows(record: memoryview) -> int:
    return len(tf.train.Example.FromString(bytes(record)).features.feature["lengths"].int64_list.value)

"""Prepared data of ids drawn at random, by the writer of `tfbert prepare`; lengths are log-normal, 27 tokens in the middle, 128 at most."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from pathlib import Path

import numpy as np

import tfbert
from tfbert import features, files
from tfbert._compat import tf
from tfbert.prepared import parts
from tfbert.prepared.manifest import NAME, Counts, Manifest, histogram, tokenizer_hash
from tfbert.prepared.records import Layout, records
from tfbert.prepared.writing import FEW_SHARDS, RECORDS_EACH

CHECKPOINT, LONGEST, PART = "all-MiniLM-L6-v2", 128, 20_000


@dataclasses.dataclass(frozen=True)
class Draw:
    """Makes a part of random rows: what `parts.Job` does with texts."""

    place: Path
    number: int
    rows: int
    vocabulary: int

    def __call__(self) -> parts.Part:
        chance = np.random.default_rng(self.number)
        lengths = np.clip(np.exp(chance.normal(np.log(27), 0.6, self.rows)).astype(np.int64), 3, LONGEST)
        splits = np.concatenate([[0], np.cumsum(lengths)])
        ids = chance.integers(1000, self.vocabulary, splits[-1]).astype(np.int32)
        made = features.Features(
            ragged={"input_ids": (ids, splits), "token_type_ids": (np.zeros_like(ids), splits)},
            padding={"input_ids": 0, "token_type_ids": 0},
            targets=chance.integers(0, 2, self.rows).astype(np.int32),
            weights=np.ones(self.rows, np.float32),
        )
        path = self.place / f"{self.number:06}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records(made):
                writer.write(record)
        used = features.pieces_in_use(made)
        counts = Counts(self.rows, self.rows, self.rows, int(lengths.sum()), histogram(lengths), used, (1.0, 1.0))
        return parts.Part(path.name, "", files.sha256(path), counts, Layout.of(made))


def write(folder: Path, rows: int, drawn: int, threads: int) -> None:
    """Writes prepared data of that many rows, of which at most `drawn` differ: the others are these again."""
    tokenizer, place = tfbert.load_tokenizer(CHECKPOINT), folder.parent / f".{folder.name}.parts"
    place.mkdir(parents=True, exist_ok=True)
    task = tfbert.SequenceClassification(labels=("no", "yes"), pair=False, max_length=LONGEST)
    counts, made = None, []
    sizes = [min(PART, rows - begin) for begin in range(0, rows, PART)]
    different = max(1, min(len(sizes), drawn // PART))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(Draw(place, number, size, len(tokenizer))) for number, size in enumerate(sizes[:different])]
        # The last part is smaller than others only where nothing comes again.
        for number in range(len(sizes)):
            part = jobs[number % different].result()
            counts = part.counts if counts is None else counts + part.counts
            made.append(dataclasses.replace(part, counts=None))
    shards = max(FEW_SHARDS, -(-rows // RECORDS_EACH))
    with files.new_directory(folder) as new:
        dealt = tuple(parts.merge(place, made, new, shards))
        source = {"name": "drawn at random", "sha256": ""}
        about = (task.to_json(), tokenizer_hash(tokenizer), source, made[0].layout, counts, False, dealt, {})
        files.write_json(new / NAME, Manifest(*about).to_json())
    for part in made[:different]:
        (place / part.file).unlink()
    place.rmdir()

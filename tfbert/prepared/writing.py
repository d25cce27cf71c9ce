"""`prepare`: any source -> a folder of tokenized shards with a manifest, by several processes, and from where it stopped."""

from __future__ import annotations

import array
import collections
import concurrent.futures
import dataclasses
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tfbert import _compat, files
from tfbert.errors import InputError
from tfbert.prepared import parts
from tfbert.prepared.folder import Prepared
from tfbert.prepared.manifest import NAME, Manifest, tokenizer_hash
from tfbert.prepared.processes import Processes
from tfbert.sources import Examples, Stream, canonical, documents, from_iterable, stream
from tfbert.sources.examples import Cleaning, counted
from tfbert.tasks import Task
from tfbert.tokenization import load_tokenizer

FEW_SHARDS, RECORDS_EACH = (
    16,
    50_000,
)  # how many shards there are by themselves, and records of each where there are more
EVERY = 5  # seconds between two lines of progress
AHEAD = 2  # parts for each process that wait


def prepare(
    task: Task,
    checkpoint,
    train,
    directory,
    *,
    shards: int | None = None,
    processes: int = 1,
    keep_examples: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    **options,
) -> Prepared:
    """Tokenizes examples once, into a folder from which training streams them: for data that are larger than memory.

    The source is read as a stream. Some thousand examples at a time are tokenized, by `processes` processes, into parts beside the folder,
    in `.NAME.parts`; at last their records are dealt to the shards in turn, and the folder appears when all in it is complete. Until then
    it takes twice the space. After a crash, `kill -9` at whatever moment, or a row that is wrong, the same call with `resume` keeps the
    parts that are whole and made of the same rows. The bytes are the same with any number of processes and after any interruption.

    What the task leaves to the data (labels, whether texts come in pairs) is told by a first pass over the source, which keeps of each row
    what is not text, rows that are equal in it once: little where labels repeat, but all the numbers of a regression. With every
    such field given (`is_open` is False) there is no such pass, and no limit.

    Args:
        task: such as `SequenceClassification()`.
        checkpoint: whose tokenizer it is for: a folder, a name on the Hugging Face hub, or "all-MiniLM-L6-v2" for the packaged one.
        train: a file, as `stream` reads it (.csv, .tsv, .jsonl, .txt and .parquet row by row; other kinds are read whole),
            "tfds:NAME:SPLIT", or any iterable of dicts; one that can be read only once needs a task with every field given.
        directory: the folder to write.
        shards: how many files; each worker of a training needs one at least. None (default): 16, or as many as have 50,000 records each
            where that is more; never more than there are records.
        processes: that tokenize (default 1: this one).
        keep_examples: keep the examples themselves beside their tokens (default False), so that the folder can be validation data too.
        resume: keep the parts of an interrupted call, or begin where there is none (default False).
        overwrite: replace a folder that `prepare` wrote, and forget parts that are not finished (default False).
        columns: as for `read`.
        **options: as for `read`.

    Returns:
        What was written, to train from.

    Raises:
        InputError: whatever the user can mend, in one line that names the place: of a row, file:line.
    """
    if processes < 1 or (shards is not None and shards < 1):
        raise InputError(f"processes is {processes} and shards {shards}; both must be at least 1")
    directory = Path(directory)
    with files.locked(directory):
        place = _place(directory, resume, overwrite)
        tokenizer = load_tokenizer(checkpoint)
        opened = _source(task, train, columns, options)
        task = _filled(task, opened)
        hashed = tokenizer_hash(tokenizer)
        plan = {**task.to_json(), "tokenizer": hashed, "keep_examples": keep_examples}
        _same_plan(place, {**plan, "size of a part": [parts.EXAMPLES, parts.CHARACTERS]})
        rows, digest = opened(), hashlib.sha256()
        progress, whole = Progress(rows), _Whole(_name(train))
        make = _Maker(task, str(checkpoint), place, keep_examples)
        for part in make.all(parts.blocks(_read(rows, digest)), processes):
            whole.add(part)
            progress.done(part.counts.examples, part.counts.tokens)
        for note in rows.notes:
            print(f"tfbert: note: {note}", file=sys.stderr)
        count = whole.shards(shards)
        with files.new_directory(directory, overwrite=True) as folder:
            written = tuple(parts.merge(place, whole.parts, folder, count))
            source = {"name": whole.source, "sha256": digest.hexdigest()}
            about = (source, whole.layout, whole.counts, keep_examples, written, _compat.versions())
            files.write_json(folder / NAME, Manifest(task.to_json(), hashed, *about).to_json())
        progress.end()
        shutil.rmtree(place)
    return Prepared(directory)


def _place(directory: Path, resume: bool, overwrite: bool) -> Path:
    """The folder of parts beside the output, once it is sure that both may be written."""
    place = directory.parent / f".{directory.name}.parts"
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; the output must be a folder")
    if directory.exists() and any(directory.iterdir()):
        if not (directory / NAME).is_file():
            raise InputError(f"{directory} is not empty and holds no prepared data; choose another output folder")
        if not overwrite:
            raise InputError(
                f"{directory} holds prepared data; choose another output folder, or pass overwrite (--overwrite) to replace them"
            )
    if place.exists() and not resume:
        if not overwrite:
            raise InputError(
                f"{directory} was begun and not finished; pass resume (--resume) to go on, or overwrite (--overwrite) to begin anew"
            )
        shutil.rmtree(place)
    return place


def _same_plan(place: Path, plan: dict) -> None:
    """Notes what the parts are made for, or compares it with what an interrupted call has noted."""
    path = place / "plan.json"
    plan = _as_read(plan)
    if not path.is_file():
        files.write_json(path, plan)
        return
    before = files.read_json(path)
    for name in plan:
        if before.get(name) != plan[name]:
            raise InputError(
                f"the parts in {place} were made with another {name}; take what they were begun with, or pass overwrite (--overwrite), "
                "without resume, to begin anew"
            )


def _as_read(value):
    """A value as JSON gives it back."""
    if isinstance(value, dict):
        return {name: _as_read(item) for name, item in value.items()}
    return [_as_read(item) for item in value] if isinstance(value, list | tuple) else value


def _name(train) -> str:
    return os.fspath(train) if isinstance(train, str | os.PathLike) else getattr(train, "source", "examples")


def _source(task: Task, train, columns, options) -> Callable[[], Stream]:
    """The function that begins to read the source; where that can be done only once, a second call is an InputError."""
    if isinstance(train, str | os.PathLike):
        if task.documents and os.fspath(train).lower().removesuffix(".gz").endswith(".txt"):
            return lambda: documents(train, **options)
        return lambda: stream(train, columns=columns, **options)
    if columns or options:
        raise InputError("columns and options are for a file; rows in memory need no reading")
    if isinstance(train, Iterator):
        taken = []

        def once():
            if taken:
                raise InputError(
                    "this source can be read only once, but what the task leaves open (the labels, ...) needs a pass of its own; give them "
                    "with the task, or give a file or a list"
                )
            taken.append(True)
            return train if isinstance(train, Stream) else Stream(_cleaned(train))

        return once
    examples = from_iterable(train, "train")

    def begin():
        rows = Stream((examples.select([i]) for i in range(len(examples))), notes=examples.notes)
        rows.share = lambda: rows.taken / len(examples)
        return rows

    return begin


def _cleaned(rows: Iterable) -> Iterator[Examples]:
    cleaning = Cleaning()
    for number, row in enumerate(rows, 1):
        yield Examples([cleaning.row(row, f"row {number} of train")], source="train", rows_at=[number])


def _read(rows: Stream, digest) -> Iterator[Examples]:
    """Each row as Examples, while the hash of all of them grows."""
    for row in rows:
        if row is not None:
            digest.update(canonical(row))
            yield rows.last


def _filled(task: Task, opened: Callable[[], Stream]) -> Task:
    """The task with every field filled, by a pass over the source where one is open."""
    if not task.is_open:
        return task
    rows, seen, lines, source = opened(), {}, array.array("q"), "train"
    kept: list[dict] = []
    for row in rows:
        if row is None:
            continue
        told = task.told(row)
        kept.append(seen.setdefault(canonical(told), told))
        source = rows.last.source
        if rows.last.lines is not None and isinstance(rows.last.lines[0], int):
            lines.append(rows.last.lines[0])
    if not kept:
        raise InputError(f"{source} has no examples; training needs some")
    return task.from_data(Examples(kept, source=source, lines=lines if len(lines) == len(kept) else None))


class _Maker:
    """Makes the parts of a source, here or in other processes, in their order."""

    def __init__(self, task: Task, checkpoint: str, place: Path, keep: bool):
        self._given = {"task": task, "checkpoint": checkpoint, "place": place, "keep": keep}
        self._place = place

    def all(self, blocks: Iterable[tuple[Examples, str]], processes: int) -> Iterator[parts.Part]:
        jobs = (
            parts.finished(self._place, number, source)
            or parts.Job(number=number, examples=examples, source=source, **self._given)
            for number, (examples, source) in enumerate(blocks)
        )
        if processes == 1:
            yield from (job() if isinstance(job, parts.Job) else job for job in jobs)
            return
        with Processes(processes) as pool:
            yield from self._ahead(pool, jobs, AHEAD * processes)

    def _ahead(self, pool, jobs: Iterator, most: int) -> Iterator[parts.Part]:
        """What the jobs gave, in their order, while as many others wait or run; of two mistakes the first one is raised."""
        waiting: collections.deque = collections.deque()
        failed = None
        while failed is None:
            try:
                job = next(jobs, None)
            except InputError as error:
                failed = error
                break
            if job is None:
                break
            waiting.append(pool.submit(job) if isinstance(job, parts.Job) else job)
            if len(waiting) >= most:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
        if failed is not None:
            raise failed


def _result(job) -> parts.Part:
    return job.result() if isinstance(job, concurrent.futures.Future) else job


class _Whole:
    """What the parts are together."""

    def __init__(self, source: str):
        self.source, self.parts = source, []
        self.layout = self.counts = None

    def add(self, part: parts.Part) -> None:
        self.layout = part.layout if self.layout is None else self.layout.joined(part.layout, self.source)
        self.counts = part.counts if self.counts is None else self.counts + part.counts
        self.parts.append(dataclasses.replace(part, counts=None))  # thousands of them would hold much

    def shards(self, wanted: int | None) -> int:
        """How many there will be."""
        if self.counts is None:
            raise InputError(f"{self.source} has no examples; training needs some")
        if wanted is None:
            return min(max(FEW_SHARDS, -(-self.counts.records // RECORDS_EACH)), self.counts.records)
        if wanted > self.counts.records:
            raise InputError(f"shards is {wanted}, but there are {counted(self.counts.records, 'record')}; take fewer")
        return wanted


class Progress:
    """Says on stderr, every few seconds, how many rows are tokenized, which share that is, and how long the rest will take.

    Args:
        rows: what is read.
        clock: a function that gives seconds.
    """

    def __init__(self, rows: Stream, clock: Callable[[], float] = time.monotonic):
        self._rows, self._clock = rows, clock
        self._count = self._tokens = self._said = 0
        self._begin = self._told = clock()

    def done(self, examples: int, tokens: int) -> None:
        self._count += examples
        self._tokens += tokens
        if self._clock() - self._told >= EVERY:
            self._tell()

    def end(self) -> None:
        """Says the whole, if less was said before."""
        if 0 < self._said < self._count:
            self._tell()

    def _tell(self) -> None:
        self._told, self._said = self._clock(), self._count
        seconds = self._told - self._begin
        share = self._rows.share() * self._count / self._rows.taken if self._rows.share and self._rows.taken else 0.0
        left = ""
        if share:
            rest = round(seconds / share * (1 - share))
            left = f", {share:.0%}, {rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02} left"
        rates = f"{self._count / seconds:,.0f} rows/s, {self._tokens / seconds:,.0f} tokens/s"
        print(f"tfbert: {counted(self._count, 'row')}{left}, {rates}", file=sys.stderr)

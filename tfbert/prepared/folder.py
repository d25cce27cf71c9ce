"""A folder of prepared data: what `tfbert prepare` wrote, checked, and what training reads from it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.prepared import streaming
from tfbert.prepared.manifest import NAME, read_manifest, tokenizer_hash
from tfbert.sources import Examples
from tfbert.tasks import Task, by_name
from tfbert.tokenization import load_tokenizer

MEND = "copy it again, or prepare the data again"


class Prepared:
    """Examples that `prepare` has tokenized, in a folder of shards: to train from without holding them in memory.

    `fine_tune` takes it in the place of training data, `dataset` gives its batches to a loop of one's own. The folder may lie
    where TensorFlow's file systems reach: "gs://bucket/reviews", or "s3://..." with tensorflow-io.

    Args:
        folder: what `prepare` wrote. That every shard is there and of its size is checked here; `verify` reads them.

    Raises:
        InputError: no manifest, one of another version, or a shard that is missing or of another size.

    Example:
        >>> import tempfile
        >>> from tfbert.prepared import prepare
        >>> from tfbert.tasks import SequenceClassification
        >>> rows = [{"text": "good " * (1 + i % 3), "label": "ab"[i % 2]} for i in range(20)]
        >>> place = tempfile.mkdtemp() + "/reviews"
        >>> _ = prepare(SequenceClassification(max_length=16), "all-MiniLM-L6-v2", rows, place, shards=2)
        >>> data = Prepared(place)
        >>> len(data), data.task.labels, [len(weights) for _, _, weights in data.dataset("all-MiniLM-L6-v2", batch_size=8)]
        (20, ('a', 'b'), [8, 8, 4])
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = os.fspath(folder).rstrip("/")
        self.manifest = read_manifest(self.folder)
        self._check_sizes()

    def __len__(self) -> int:
        """How many examples there are."""
        return self.manifest.counts.examples

    def __repr__(self) -> str:
        return f"Prepared({self.folder!r})"

    @property
    def source(self) -> str:
        """What messages call it."""
        return self.folder

    @property
    def task(self) -> Task:
        """The task that the data were prepared for, with every field filled."""
        fields = self.manifest.task
        return by_name(fields["task"]).from_json(fields, f"{self.folder}/{NAME}")

    def _check_sizes(self) -> None:
        for shard in self.manifest.shards:
            path = f"{self.folder}/{shard.file}"
            try:
                size = tf.io.gfile.stat(path).length
            except tf.errors.NotFoundError as error:
                raise InputError(f"{path} is missing; {MEND}") from error
            except tf.errors.OpError as error:
                raise InputError(f"cannot read {path}: {error.message}") from error
            if size != shard.bytes:
                raise InputError(f"{path} has {size:,} bytes, not the {shard.bytes:,} that were written; {MEND}")

    def verify(self) -> None:
        """Reads every shard and compares its hash with the manifest's; the first that was altered is an InputError."""
        self._check_sizes()
        for shard in self.manifest.shards:
            path, digest = f"{self.folder}/{shard.file}", hashlib.sha256()
            try:
                with tf.io.gfile.GFile(path, "rb") as file:
                    while block := file.read(2**20):
                        digest.update(block)
            except tf.errors.OpError as error:
                raise InputError(f"cannot read {path}: {error.message}") from error
            if digest.hexdigest() != shard.sha256:
                raise InputError(f"{path} was altered: its SHA-256 is not that of {NAME}; {MEND}")

    def fill(self, task: Task) -> Task:
        """Returns the task with the fields of the prepared one where it leaves them at their defaults.

        Raises:
            InputError: it is another task, or a field on which the records depend has another value.
        """
        made = self.task
        if type(task) is not type(made):
            raise InputError(
                f"{self.folder} was prepared for {made.name}, not for {task.name}; prepare the data for it"
            )
        values = {}
        for field in dataclasses.fields(task):
            wanted, there = getattr(task, field.name), getattr(made, field.name)
            given = wanted != field.default
            if given and wanted != there and field.name not in task.not_in_rows:
                raise InputError(
                    f"{self.folder} was prepared with {field.name} {_shown(there)}, not {_shown(wanted)}; prepare the data anew, or leave "
                    "it out"
                )
            values[field.name] = wanted if given else there
        return dataclasses.replace(task, **values)

    def features(self, task: Task, tokenizer) -> streaming.Streamed:
        """What the training of a task reads.

        Args:
            task: as `fill` returned it.
            tokenizer: the checkpoint's, which must be the one that the data were prepared with.

        Raises:
            InputError: it is another tokenizer.
        """
        if tokenizer_hash(tokenizer) != self.manifest.tokenizer:
            raise InputError(
                f"{self.folder} was prepared with another tokenizer than this checkpoint's; prepare the data with --checkpoint of this one"
            )
        layout, counts, masking = self.manifest.layout, self.manifest.counts, None
        if layout.masked:
            # How masks are drawn is a matter of task and tokenizer alone: any text tells.
            probe = Examples([dict.fromkeys(task.inputs, "a")])
            masking = task.features(tokenizer, probe).masking.over(counts.rows, len(counts.lengths) - 1)
        return streaming.Streamed(self.folder, self.manifest, layout.features(masking))

    def dataset(self, tokenizer, *, batch_size: int = 32, **options):
        """The batches of `make_dataset(..., training=True)`, from the shards: each pass is an epoch.

        Args:
            tokenizer: what `load_tokenizer` returned, or the checkpoint's name.
            batch_size: records of a batch (default 32).
            **options: `seed`, `pad_to`, `start`, `replicas` and `worker`, as `prepared.batches` takes them.
        """
        return streaming.batches(self._features(tokenizer), batch_size=batch_size, **options)

    def served(self, tokenizer, *, batch_size: int = 32, **options):
        """One epoch's batches for a tf.data service, which parts the shards among its workers: see `prepared.served`."""
        return streaming.served(self._features(tokenizer), batch_size=batch_size, **options)

    def examples(self) -> Examples:
        """The examples themselves, in their order, in memory: of data that were prepared with keep_examples.

        Raises:
            InputError: they were not kept.
        """
        if not self.manifest.kept:
            raise InputError(
                f"{self.folder} holds no examples, only their tokens, and what is scored needs them; give the file it was made of, or "
                "prepare it with keep_examples (--keep-examples)"
            )
        wanted = {"example": tf.io.VarLenFeature(tf.string)}
        shards = []
        with self.told():
            for shard in self.manifest.shards:
                records = tf.data.TFRecordDataset(f"{self.folder}/{shard.file}").batch(1024)
                shards.append(
                    [
                        None if not text else json.loads(text)
                        for found in records.map(lambda part: tf.io.parse_example(part, wanted)["example"])
                        for text in tf.sparse.to_dense(found, b"").numpy().reshape(-1).tolist()
                    ]
                )
        # Record i is in shard i % S; of an example in several records the first one has it.
        every = (part[i] for i in range(max(map(len, shards))) for part in shards if i < len(part))
        return Examples([row for row in every if row is not None], source=self.folder)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turns what TensorFlow says of a damaged shard into an InputError that names the file."""
        try:
            yield
        except tf.errors.OpError as error:
            errors = tf.errors
            # What it says of a lost worker, or of memory, is no damage, and the shards may be many.
            if not isinstance(
                error,
                errors.DataLossError | errors.InvalidArgumentError | errors.OutOfRangeError | errors.NotFoundError,
            ):
                raise
            try:
                self.verify()
            except InputError as found:
                raise found from error
            raise

    def _features(self, tokenizer) -> streaming.Streamed:
        return self.features(
            self.task, load_tokenizer(tokenizer) if isinstance(tokenizer, str | os.PathLike) else tokenizer
        )


def is_prepared(folder: str | os.PathLike) -> bool:
    """Whether there is a manifest in a folder."""
    return tf.io.gfile.exists(f"{os.fspath(folder).rstrip('/')}/{NAME}")


def _shown(value) -> str:
    """A field's value, short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

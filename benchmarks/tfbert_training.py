"""tfbert's side of training.py: `build`, `compile` and `fit` as `tfbert.fine_tune` calls them, one epoch for each line on stdin.

    python tfbert_training.py JOB.json          with "only_input" in the job, the batches are made and not learnt from

Every epoch is one JSON line on stdout: the first, the warm-up, at once; each further one when a line arrives.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from tfbert import (
    SequenceClassification,
    _compat,
    callbacks,
    devices,
    load_tokenizer,
    models,
    optimizers,
    pipeline,
    schedules,
    sources,
)
from tfbert._compat import keras, tf
from tfbert.features import pieces_in_use


class OneEpochAtATime(keras.callbacks.Callback):
    """Reports an epoch when it ends, then holds `fit` until it is told to go on.

    The clock runs from "go on" to the end of the epoch: it covers the order of the rows, the input pipeline and every step, and
    nothing of the set-up.
    """

    def __init__(self, tokens: int, padding_shares: list[float], report, about: dict):
        super().__init__()
        self.tokens, self.padding_shares, self.report, self.about = tokens, padding_shares, report, about
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.done(epoch, loss=float(logs["loss"]))

    def done(self, epoch, **values):
        self.report(
            seconds=time.perf_counter() - self.begin,
            cpu_seconds=time.process_time() - self.cpu_begin,
            tokens=self.tokens,
            padding_share=self.padding_shares[epoch],
            peak_memory_bytes=devices.peak_memory_bytes(),
            **values,
            **self.about,
        )
        self.about = {}
        sys.stdin.readline()
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()


def padding_share(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> float:
    """The share of padding in one epoch of `pipeline.batches`; rows are padded to the longest of their batch."""
    order = pipeline.epoch_order(tf.constant(lengths, tf.int64), batch_size, seed, tf.constant(epoch, tf.int64))[
        0
    ].numpy()
    batches = np.split(lengths[order], range(batch_size, len(lengths), batch_size))
    return float(1 - lengths.sum() / sum(len(rows) * rows.max() for rows in batches))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr

    def report(**values):
        print(json.dumps(values), file=channel, flush=True)

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    precision = devices.choose_precision(job["precision"])
    keras.utils.set_random_seed(job["seed"])
    keras.mixed_precision.set_global_policy(devices.PRECISIONS[precision])
    tokenizer = load_tokenizer(job["checkpoint"])
    task = SequenceClassification(labels=tuple(job["names"]), pair=False, max_length=job["max_length"])
    rows = [{"text": text, "label": job["names"][label]} for text, label in zip(job["texts"], job["labels"])]
    features = task.features(tokenizer, sources.from_iterable(rows, "train"))
    model = task.build(job["checkpoint"], seed=job["seed"])
    lengths, config = features.lengths, model.transformer.config
    rate = schedules.by_name(
        "warmup-linear",
        job["learning_rate"],
        total_steps=job["epochs"] * -(-len(lengths) // job["batch_size"]),
        warmup_fraction=job["warmup_fraction"],
    )
    optimizer = optimizers.AdamW(rate, weight_decay=job["weight_decay"], clip_norm=job["clip_norm"])
    optimizer.learn_rows(models.word_embeddings(model), pieces_in_use(features))
    about = {
        "precision": precision,
        "optimizer": "tfbert.AdamW",
        "attention": "lean",
        "dropout": [config.hidden_dropout_prob, config.attention_probs_dropout_prob],
        "parameters": int(model.count_params()),
        "versions": _compat.versions(),
    }
    shares = [padding_share(lengths, job["batch_size"], job["seed"], epoch) for epoch in range(job["epochs"])]
    data = pipeline.batches(features, batch_size=job["batch_size"], training=True, seed=job["seed"])
    waiter = OneEpochAtATime(int(lengths.sum()), shares, report, about)
    if job.get("only_input"):
        for epoch in range(job["epochs"]):
            for _ in data:
                pass
            waiter.done(epoch)
        return
    model.compile(optimizer, loss=task.loss())
    model.fit(
        data,
        epochs=job["epochs"],
        verbose=0,
        callbacks=[callbacks.EpochTimer(), callbacks.StopOnNonFinite(), waiter],
    )


if __name__ == "__main__":
    main()

"""One training step, its forms in turn: processor time with either encoder, without the update or dropout, and compiled by XLA.

    python benchmarks/training_step.py                                  # 32 rows of 32 tokens
    python benchmarks/training_step.py 32 128
    TF_ENABLE_ONEDNN_OPTS=0 python benchmarks/training_step.py          # without oneDNN's matrix products

MiniLM, a tenth of the tokens padding, float32, a new head of eight labels. Prints one JSON object: milliseconds, medians of eight rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import numpy as np

from tfbert import AdamW, losses, models
from tfbert._compat import tf

CHECKPOINT, LABELS, ROUNDS, ROWS_IN_USE = "all-MiniLM-L6-v2", 8, 8, 5000
# Encoder, whether the weights are updated, whether only the rows in use are, whether there is dropout, whether XLA compiles the step.
FORMS = {
    "transformers": ("transformers", True, False, True, False),
    "lean, whole table": ("lean", True, False, True, False),
    "lean": ("lean", True, True, True, False),
    "lean, no update": ("lean", False, False, True, False),
    "lean, no update, no dropout": ("lean", False, False, False, False),
    "lean, XLA": ("lean", True, True, True, True),
}


def batch(rows: int, length: int):
    """int32 ids, mask and types [B, T] and labels [B]; the lengths are between four fifths of `length` and all of it."""
    random = np.random.default_rng(0)
    lengths = random.integers(round(0.8 * length), length + 1, rows)
    mask = (np.arange(length) < lengths[:, np.newaxis]).astype(np.int32)
    ids = random.integers(1000, 20000, mask.shape).astype(np.int32) * mask
    features = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: tf.constant(values) for name, values in features.items()}, tf.constant(
        random.integers(0, LABELS, rows)
    )


def step(features, labels, encoder: str, updates: bool, in_use: bool, dropout: bool, xla: bool):
    """Returns the compiled step, which takes the features."""
    model = models.as_keras(models.load(CHECKPOINT, "sequence-classification", num_labels=LABELS, encoder=encoder))
    variables, optimizer = model.trainable_variables, AdamW(1e-5)
    if in_use:
        others = np.random.default_rng(1).permutation(30000)[:ROWS_IN_USE]
        optimizer.learn_rows(models.word_embeddings(model), np.union1d(others, features["input_ids"]))
    optimizer.build(variables)

    def run(features):
        with tf.GradientTape() as tape:
            logits = model(features, training=dropout)["logits"]
            loss = tf.reduce_mean(losses.sparse_categorical_crossentropy(labels, logits))
        gradients = tape.gradient(loss, variables)
        if updates:
            optimizer.apply_gradients(zip(gradients, variables))
            return loss
        # A number of each, so that none is left out.
        return [tf.reduce_sum(each.values if isinstance(each, tf.IndexedSlices) else each) for each in gradients]

    signature = [{name: tf.TensorSpec([None, None], tf.int32) for name in features}]
    return tf.function(run, input_signature=signature, jit_compile=xla)


def main() -> None:
    rows, length = (int(word) for word in sys.argv[1:] or ("32", "32"))
    features, labels = batch(rows, length)
    steps = {name: step(features, labels, *form) for name, form in FORMS.items()}
    for run in steps.values():
        run(features)
    cpu, wall = {name: [] for name in steps}, {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, run in steps.items():
            began, spent = time.perf_counter(), time.process_time()
            run(features)
            cpu[name].append(1e3 * (time.process_time() - spent))
            wall[name].append(1e3 * (time.perf_counter() - began))
    found = {
        name: {"cpu_ms": round(statistics.median(cpu[name]), 1), "ms": round(statistics.median(wall[name]), 1)}
        for name in steps
    }
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
    about = {"benchmark": "training_step", "rows": rows, "length": length, "TF_ENABLE_ONEDNN_OPTS": onednn}
    print(json.dumps({**about, **found}))


if __name__ == "__main__":
    main()

"""Training steps of a model as large as BERT base, with and without gradient checkpointing: peak memory and processor time.

    python benchmarks/gradient_checkpointing.py            # 16 rows of 128 tokens
    python benchmarks/gradient_checkpointing.py 8 512

Random weights, float32, dropout 0.1, no padding; each side in a process of its own. Prints one JSON object: GiB before the first step
and at the fullest moment, seconds of all threads of the last of three steps, and the three losses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tfbert import AdamW, devices, losses, models
from tfbert._compat import keras, tf, transformers
from tfbert.models.lean import put
from tfbert.models.loading import quiet

STEPS = 3


def measure(rows: int, length: int, gradient_checkpointing: bool) -> dict:
    """Trains some steps in this process."""
    keras.utils.set_random_seed(0)
    with quiet():
        bare = transformers.TFBertForSequenceClassification(transformers.BertConfig())
        bare.build_in_name_scope()
    put(bare, first_token=True, gradient_checkpointing=gradient_checkpointing)
    model, random = models.as_keras(bare), np.random.default_rng(0)
    ids = random.integers(1000, 20000, (rows, length)).astype(np.int32)
    features = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    labels, variables, optimizer = tf.constant(random.integers(0, 2, rows)), model.trainable_variables, AdamW(1e-5)
    optimizer.learn_rows(models.word_embeddings(model), np.unique(ids))
    optimizer.build(variables)

    @tf.function(input_signature=[{name: tf.TensorSpec([None, None], tf.int32) for name in features}])
    def step(features):
        with tf.GradientTape() as tape:
            logits = model(features, training=True)["logits"]
            loss = tf.reduce_mean(losses.sparse_categorical_crossentropy(labels, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    before, found = devices.peak_memory_bytes(), []
    for _ in range(STEPS):
        began = time.process_time()
        found.append(float(step(features)))
    return {
        "before_gib": round(before / 2**30, 2),
        "peak_gib": round(devices.peak_memory_bytes() / 2**30, 2),
        "cpu_seconds": round(time.process_time() - began, 1),
        "losses": found,
    }


def main() -> None:
    rows, length, *only = [int(word) for word in sys.argv[1:]] or (16, 128)
    if only:
        print(json.dumps(measure(rows, length, bool(only[0]))))
        return
    result = {"benchmark": "gradient_checkpointing", "rows": rows, "length": length}
    for name, switch in (("without", "0"), ("with", "1")):
        command = [sys.executable, str(Path(__file__)), str(rows), str(length), switch]
        result[name] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Which message means the same? Score, fine-tune on pairs, score again, export, and search with the export in a fresh process.

    python examples/sentence_embedding.py

A minute or two on two CPU cores, without a network: the checkpoint is the packaged all-MiniLM-L6-v2, the data lies beside this file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import tfbert

HERE = Path(__file__).resolve().parent
CHECKPOINT = "all-MiniLM-L6-v2"
OUTPUT = HERE.parent / "saved_models" / "similar"
TEST = HERE / "data" / "similar_test.jsonl"
UNSEEN = [
    "Can I drink beer while I'm on antibiotics?",
    "The elevator has stopped and we can't get out!",
]


def train() -> None:
    """Pairs of messages in; scores before and after, checkpoint and SavedModel out."""
    task, test = tfbert.SentenceEmbedding(objective="ranking", max_length=64), tfbert.read(TEST)
    before = tfbert.evaluate(task, task.build(CHECKPOINT), tfbert.load_tokenizer(CHECKPOINT), test)
    tuned = tfbert.fine_tune(
        task,
        CHECKPOINT,
        tfbert.read(HERE / "data" / "similar_train.jsonl"),
        test=test,
        directory=OUTPUT,
        epochs=3,
        batch_size=16,
        learning_rate=5e-5,
        overwrite=True,
    )
    print(f"\n{tuned.directory} before and after {tuned.metrics['train_seconds']:.0f} s of training:")
    for name, score in tuned.metrics["test"].items():
        print(f"    {name:28}{before[name]:.3f}  {score:.3f}")


def ask() -> None:
    """Loads the SavedModel, no checkpoint and no tokenizer, and searches the test messages by it."""
    embedder = tfbert.SentenceEmbedder(OUTPUT)
    messages = [row["text_pair"] for row in tfbert.read(TEST)]
    cosines = embedder.transform(UNSEEN) @ embedder.transform(messages).T  # vectors of length 1: inner product = cosine
    print(f"\n{embedder.directory} finds:")
    for query, nearest, cosine in zip(UNSEEN, np.argmax(cosines, axis=1), np.max(cosines, axis=1), strict=True):
        print(f"    {query}")
        print(f"        {cosine:.2f}  {messages[nearest]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

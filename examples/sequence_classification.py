"""Which desk should answer a customer's message? Fine-tune, score, export, and ask the exported model in a fresh process.

    python examples/sequence_classification.py

A few minutes on two CPU cores, without a network: the checkpoint is the packaged all-MiniLM-L6-v2, the data lies beside this file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "delivery"
UNSEEN = [
    "It says out for delivery since Tuesday but nobody came. Where is my box?",
    "He threw the parcel over the fence and broke my flower pot.",
    "You charged my card twice, I would like the second payment back.",
    "Please send it to my office instead of my flat.",
    "Do you also ship car tyres to Norway, and what does it cost?",
]


def train() -> None:
    """Labelled files in; checkpoint, scores and SavedModel out."""
    tuned = tfbert.fine_tune(
        tfbert.SequenceClassification(max_length=64),
        "all-MiniLM-L6-v2",
        tfbert.read(HERE / "data" / "delivery_train.csv"),
        test=tfbert.read(HERE / "data" / "delivery_test.csv"),
        directory=OUTPUT,
        epochs=5,
        batch_size=16,
        learning_rate=2e-4,
        overwrite=True,
    )
    print(f"\n{tuned.directory} after {tuned.metrics['train_seconds']:.0f} s of training:")
    for name, score in tuned.metrics["test"].items():
        print(f"    {name:28}{score:.3f}")


def ask() -> None:
    """Loads the SavedModel, nothing else: no checkpoint, no tokenizer."""
    predictor = tfbert.Predictor(OUTPUT)
    print(f"\n{predictor.directory} answers:")
    for text, answer in zip(UNSEEN, predictor(UNSEEN), strict=True):
        print(f"    {answer['label']:20}{answer['score']:.2f}  {text}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

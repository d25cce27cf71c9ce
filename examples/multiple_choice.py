"""How does the story go on? Fine-tune on situations with four choices, score, export, and ask the export in a fresh process.

    python examples/multiple_choice.py

A minute or two on two CPU cores, without a network: the checkpoint is the packaged all-MiniLM-L6-v2, the data lies beside this file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "choices"
UNSEEN = [
    (
        "The torch went out just as we had reached the far end of the cave.",
        [
            "We spread our towels and lay down in the sun.",
            "We asked the waiter for a table by the window.",
            "We felt our way back with one hand on the wall.",
            "We raked the leaves and lit a fire in the yard.",
        ],
    ),
    (
        "Grandad's glasses slid off his nose and fell into the canal.",
        [
            "He sharpened the chisel and went on carving the spoon.",
            "He had to ask the rest of us to read him the menu.",
            "He moved his bishop and took the queen without a word.",
            "He thanked the nurse and buttoned up his shirt again.",
        ],
    ),
]


def train() -> None:
    """Situations with choices in; checkpoint, scores and SavedModel out."""
    tuned = tfbert.fine_tune(
        tfbert.MultipleChoice(max_length=64),
        "all-MiniLM-L6-v2",
        tfbert.read(HERE / "data" / "choices_train.jsonl"),
        test=tfbert.read(HERE / "data" / "choices_test.jsonl"),
        directory=OUTPUT,
        epochs=8,
        batch_size=8,
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
    for (text, choices), answer in zip(UNSEEN, predictor(UNSEEN), strict=True):
        print(f"    {text}")
        print(f"        {answer['score']:.2f}  {choices[answer['choice']]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

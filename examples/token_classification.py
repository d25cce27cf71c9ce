"""Who, which company, where, which product? Fine-tune on sentences with entities, score, export, and ask the export in a fresh process.

    python examples/token_classification.py

A minute or two on two CPU cores, without a network: the checkpoint is the packaged all-MiniLM-L6-v2, the data lies beside this file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "entities"
UNSEEN = [
    "Zoë Brandt of Kestrel Freight flew from Zürich to São Paulo on Monday.",
    "the depot in leeds sent my order to the wrong street again",
    "Ask Mr Okafor whether Harbour & Sons still sells the Trailmate 40.",
]


def train() -> None:
    """Tagged sentences in; checkpoint, scores and SavedModel out."""
    tuned = tfbert.fine_tune(
        tfbert.TokenClassification(max_length=64, constrained=True),
        "all-MiniLM-L6-v2",
        tfbert.read(HERE / "data" / "entities_train.conll"),
        test=tfbert.read(HERE / "data" / "entities_test.conll"),
        directory=OUTPUT,
        epochs=12,
        batch_size=8,
        learning_rate=3e-4,
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
        print(f"    {text}")
        for label, score, start, end in zip(
            *(answer[name] for name in ("label", "score", "start", "end")), strict=True
        ):
            print(f"        {label:6}{score:.2f}  {text[start:end]}  [{start}, {end})")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

"""What does a model learn from messages alone? Begin with nothing but text, pretrain, score, export, and ask the export in a fresh process.

    python examples/pretraining.py

A few minutes on two CPU cores, without a network and without a checkpoint: the tokenizer is learnt, the weights are drawn.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "from_nothing"
UNSEEN = [
    "Where is my [MASK]? It should have been here on Monday.",
    "The driver threw my parcel over the [MASK].",
    "I want my [MASK] back.",
]


def train() -> None:
    """Messages without labels in; tokenizer, checkpoint, perplexity and SavedModel out."""
    task = tfbert.MaskedLM(max_length=64, top_k=3)
    messages, test = (tfbert.read(HERE / "data" / f"delivery_{part}.csv") for part in ("train", "test"))
    begin = OUTPUT.with_name(f"{OUTPUT.name}_begin")
    shutil.rmtree(begin, ignore_errors=True)
    tfbert.create_checkpoint(
        begin, messages, vocab_size=1500, hidden_size=128, num_hidden_layers=2, num_attention_heads=2
    )
    before = tfbert.evaluate(task, task.build(begin), tfbert.load_tokenizer(begin), test)
    tuned = tfbert.fine_tune(
        task,
        begin,
        messages,
        test=test,
        directory=OUTPUT,
        epochs=40,
        batch_size=16,
        learning_rate=2e-3,
        overwrite=True,
    )
    print(f"\n{tuned.directory} before and after {tuned.metrics['train_seconds']:.0f} s of training:")
    for name, score in tuned.metrics["test"].items():
        print(f"    {name:16}{before[name]:10.3f}{score:10.3f}")


def ask() -> None:
    """Loads the SavedModel, nothing else: no checkpoint, no tokenizer."""
    predictor = tfbert.Predictor(OUTPUT)
    print(f"\n{predictor.directory} fills in:")
    for text, answer in zip(UNSEEN, predictor(UNSEEN), strict=True):
        print(f"    {text}")
        print("        " + ", ".join(f"{token} {score:.2f}" for token, score in zip(answer["token"], answer["score"])))


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

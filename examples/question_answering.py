"""The answer to a question, and where it stands: fine-tune on short passages, score, export, and ask the export in a fresh process.

    python examples/question_answering.py

Some minutes on two CPU cores, without a network: the checkpoint is the packaged all-MiniLM-L6-v2, the data lies beside this file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "passages"
PASSAGE = (
    "The night bus 81 now stops at the hospital too. Since Monday it leaves the station at 0.20 and 1.50; a ticket costs 3 euros, and "
    "nurses on duty ride free. The new driver, Nora Castellano, used to steer a snow plough."
)
UNSEEN = ["Where does the bus stop now?", "How much is a ticket?", "Who is the new driver?"]


def train() -> None:
    """Passages, questions and answers in; checkpoint, scores and SavedModel out."""
    tuned = tfbert.fine_tune(
        tfbert.QuestionAnswering(max_length=224, max_answer_length=12),
        "all-MiniLM-L6-v2",
        tfbert.read_squad(HERE / "data" / "passages_train.json"),
        test=tfbert.read_squad(HERE / "data" / "passages_test.json"),
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
    print(f"\n{predictor.directory} answers:\n    {PASSAGE}")
    rows = [(question, PASSAGE) for question in UNSEEN]
    for question, answer in zip(UNSEEN, predictor(rows), strict=True):
        print(f"    {question:34}{answer['score']:.2f}  {answer['answer']}  [{answer['start']}, {answer['end']})")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

"""Which of four sentences answers a question? Fine-tune, score, export, and ask the export in a fresh process.

    python examples/multiple_choice.py

Some minutes on two CPU cores, without a network: the checkpoint is the packaged all-MiniLM-L6-v2, the data lies beside this file.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "choices"
UNSEEN = {
    "Who mended the clock?": "The church clock of Velden strikes seven at noon, which bothers nobody. In spring Anton Maes, a locksmith "
    "from Ghent, took it apart and mended the chain. The parish paid him 400 euros. The tower stays shut until the swifts have gone.",
    "How high was the water?": "The mayor came in rubber boots. It had rained for a week when the Lys broke its banks on Friday night. In "
    "Mill Street the water stood 40 centimetres high. The fire brigade pumped out two cellars and saved a piano.",
}


def sentences(text: str) -> list[str]:
    """The sentences of a passage."""
    return re.split(r'(?<=[.?!])"? (?=["A-Z])', text)


def rows(name: str) -> list[dict]:
    """Each question with the sentence that holds its answer among three others of the same passage, in a random order."""
    shuffle, made = random.Random(0), []
    for row in tfbert.read_squad(HERE / "data" / name):
        others = sentences(row["context"])
        right = others.pop(len(sentences(row["context"][: row["answers"][0]["start"] + 1])) - 1)
        choices = shuffle.sample([right, *shuffle.sample(others, 3)], 4)
        made.append({"text": row["question"], "choices": choices, "label": choices.index(right)})
    return made


def train() -> None:
    """Questions with their choices in; checkpoint, scores and SavedModel out."""
    tuned = tfbert.fine_tune(
        tfbert.MultipleChoice(max_length=64),
        "all-MiniLM-L6-v2",
        rows("passages_train.json"),
        test=rows("passages_test.json"),
        directory=OUTPUT,
        epochs=8,
        batch_size=8,
        learning_rate=1e-4,
        monitor="log_loss",  # a dozen held-out questions are soon all right; how sure the answers are still tells epochs apart
        overwrite=True,
    )
    print(f"\n{tuned.directory} after {tuned.metrics['train_seconds']:.0f} s of training:")
    for name, score in tuned.metrics["test"].items():
        print(f"    {name:28}{score:.3f}")


def ask() -> None:
    """Loads the SavedModel, nothing else: no checkpoint, no tokenizer."""
    predictor = tfbert.Predictor(OUTPUT)
    print(f"\n{predictor.directory} answers:")
    questions = [(question, sentences(text)) for question, text in UNSEEN.items()]
    for (question, choices), answer in zip(questions, predictor(questions), strict=True):
        print(f"    {question:28}{answer['score']:.2f}  {choices[answer['choice']]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

"""Search by meaning: questions and the sentences that answer them brought together, the export searched in a fresh process.

    python examples/sentence_embedding.py

A minute or two on two CPU cores, without a network: the checkpoint is the packaged all-MiniLM-L6-v2, the data lies beside this file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "search"
QUERIES = ["What happened to the mill?", "Is the place shut at lunch time?", "What makes the windows dirty?"]


def sentences(text: str) -> list[str]:
    """The sentences of a passage."""
    return re.split(r'(?<=[.?!])"? (?=["A-Z])', text)


def pairs(name: str) -> list[dict[str, str]]:
    """Each question beside the sentence that holds its answer; all other sentences of a batch are wrong ones."""
    made = []
    for row in tfbert.read_squad(HERE / "data" / name):
        upto = len(sentences(row["context"][: row["answers"][0]["start"] + 1]))
        made.append({"text": row["question"], "text_pair": sentences(row["context"])[upto - 1]})
    return made


def train() -> None:
    """Pairs in; checkpoint, scores and SavedModel out."""
    task, train, test = (
        tfbert.SentenceEmbedding(objective="ranking"),
        *map(pairs, ("passages_train.json", "passages_test.json")),
    )
    tokenizer = tfbert.load_tokenizer("all-MiniLM-L6-v2")
    before = tfbert.evaluate(task, task.build("all-MiniLM-L6-v2"), tokenizer, test)
    settings = {"epochs": 3, "batch_size": 16, "learning_rate": 5e-5}
    tuned = tfbert.fine_tune(task, "all-MiniLM-L6-v2", train, test=test, directory=OUTPUT, overwrite=True, **settings)
    print(f"\n{tuned.directory} after {tuned.metrics['train_seconds']:.0f} s of training, and the checkpoint alone:")
    for name, score in tuned.metrics["test"].items():
        print(f"    {name:28}{score:.3f}   {before[name]:.3f}")


def ask() -> None:
    """Loads the SavedModel, nothing else, and finds the sentence nearest to each query."""
    embedder = tfbert.SentenceEmbedder(OUTPUT)
    found = dict.fromkeys(
        sentence
        for row in tfbert.read_squad(HERE / "data" / "passages_test.json")
        for sentence in sentences(row["context"])
    )
    known = list(found)
    cosines = embedder.transform(QUERIES) @ embedder.transform(known).T
    print(f"\n{OUTPUT} finds among {len(known)} sentences:")
    for query, row in zip(QUERIES, cosines, strict=True):
        print(f"    {query:36}{row.max():.2f}  {known[row.argmax()]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

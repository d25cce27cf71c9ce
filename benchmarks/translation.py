"""Translation from nothing: a small T5 of random weights learns English to German on multi30k; BLEU over the training, served = Python.

    python benchmarks/translation.py --data ../shared/data/multi30k --output build/translation

The tokenizer, a byte-level BPE, is learnt from the training text. After each epoch BLEU and chrF of the validation sentences are
computed by sacrebleu; in the end those of the test sentences, and the export's answers to 500 of them are compared with the Python
model's, text by text. The exit code is 1 where one differs. The result is one JSON object on stdout; a table goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import tfbert

COMPARED = 500


def pairs(data: Path, part: str, longest: int, most: int) -> list[dict]:
    """The first sentences of up to `longest` words on both sides."""
    files = (data / f"{part}.{language}.gz" for language in ("en", "de"))
    rows = tfbert.read_parallel(*files, names=("text", "target"))
    return [row for row in rows if all(len(text.split()) <= longest for text in row.values())][:most]


def begin(folder: Path, rows: list[dict], args) -> Path:
    """The tokenizer of the text, and a T5 of random weights."""
    shutil.rmtree(folder, ignore_errors=True)
    return tfbert.create_checkpoint(
        folder,
        [text for row in rows for text in row.values()],
        model_type="t5",
        tokenizer="bpe",
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        num_hidden_layers=args.layers,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of multi30k: train.en.gz, ...")
    parser.add_argument("--output", type=Path, default=Path("build/translation"))
    parser.add_argument("--rows", type=int, default=20_000, help="training sentences")
    parser.add_argument("--words", type=int, default=12, help="words of a sentence, at most")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=6000)
    parser.add_argument("--held-out", type=int, default=200, help="validation sentences")
    args = parser.parse_args()
    train = pairs(args.data, "train", args.words, args.rows)
    test = pairs(args.data, "test_2016_flickr", args.words, COMPARED)
    tuned = tfbert.fine_tune(
        tfbert.Seq2Seq(max_length=40, max_new_tokens=32, scores=("bleu", "chrf")),
        begin(args.output / "begin", train, args),
        train,
        pairs(args.data, "val", args.words, args.held_out),
        test=test,
        directory=args.output / "en-de",
        epochs=args.epochs,
        batch_size=64,
        learning_rate=1e-3,
        overwrite=True,
        report=False,
    )
    for row in tuned.history:
        shown = (f"{name} {row[name]:.2f}" for name in ("loss", "val_perplexity", "val_bleu", "val_chrf"))
        print(f"epoch {row['epoch']:.0f}  {'  '.join(shown)}", file=sys.stderr)
    texts = [row["text"] for row in test]
    ours = tfbert.predict(tuned.task, tuned.model, tuned.tokenizer, texts)
    predictor, begun = tfbert.Predictor(tuned.directory), time.perf_counter()
    served = predictor(texts)
    seconds = time.perf_counter() - begun
    different = sum(one != other for one, other in zip(ours, served, strict=True))
    found = {
        "sentences": len(train),
        "parameters": tuned.metrics["parameters"],
        "bleu_by_epoch": [round(row["val_bleu"], 2) for row in tuned.history],
        "test": tuned.metrics["test"],
        "train_seconds": tuned.metrics["train_seconds"],
        "served": {"sentences": len(texts), "different": different, "seconds": round(seconds, 2)},
    }
    print(json.dumps(found))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()

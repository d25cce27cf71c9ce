"""What pretraining from nothing is worth: a tokenizer and a small model from text alone, by masked LM and by ELECTRA's objective.

    python benchmarks/prepare_data.py ../shared/data build/data
    python benchmarks/from_nothing.py ../shared/data/wikitext2 build/data/sentiment_mr --minutes 60
    python benchmarks/from_nothing.py ../shared/data/wikitext2 build/data/sentiment_mr --more-text build/data/movie_reviews/train.csv
    python benchmarks/from_nothing.py ../shared/data/wikitext2 build/data/sentiment_mr --minutes 60 --table-only

Every tenth article is held out, and every tenth text of --more-text, whose labels are not read. Each side is created with the same
tokenizer and of the same size, pretrained for the same time (--minutes: as many epochs as fit, by the time of one) or the same epochs
(--epochs), and then fine-tuned, beside the random weights that it began with, by several seeds. Each stage is a process of its own; what is
complete in --output is not done again, and one that was stopped goes on from its last state. The loss of the masked LM is told beside the
unigram entropy of the held-out text: what guessing by frequency alone would have.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tfbert.sources import read, read_documents
from tfbert.tokenization import load_tokenizer

SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
# Each side: the model, its objective, and the rate.
SIDES = {
    "masked-lm": {"create": {"model_type": "bert"}, "task": "masked-lm", "learning_rate": 5e-4},
    "electra": {
        "create": {"model_type": "electra", "embedding_size": 128},
        "task": "replaced-token-detection",
        "learning_rate": 5e-4,
    },
}
# Small batches: what counts in some minutes is the number of steps. Of 64 rows at 1e-3, 220 steps ended above the unigram entropy.
PRETRAINING = {"batch_size": 16, "max_length": 128, "schedule": "warmup-linear", "seed": 0}
FINE_TUNING = {"batch_size": 32, "max_length": 64, "learning_rate": 3e-4}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path, help="a folder of .txt files of wikitext's form")
    parser.add_argument("data", type=Path, help="a folder with train.csv and test.csv of labelled texts")
    parser.add_argument(
        "--more-text", type=Path, nargs="+", default=[], help="files with a column of texts to learn from as well"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=60, help="of pretraining, each side (default 60)")
    budget.add_argument("--epochs", type=int, help="of pretraining instead")
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--hidden-size", type=int, default=SIZES["hidden_size"])
    parser.add_argument("--num-hidden-layers", type=int, default=SIZES["num_hidden_layers"])
    parser.add_argument("--articles", type=int, help="so many of the text only (default: all)")
    parser.add_argument("--fine-tuning-epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3, help="fine-tunings of each checkpoint (default 3)")
    parser.add_argument("--output", type=Path, default=Path("build/from_nothing"), help="a folder for each stage")
    parser.add_argument("--table-only", action="store_true", help="print the table of what is there")
    return parser.parse_args(argv)


def articles(files: list[Path]) -> list[str]:
    """The articles of files of wikitext's form: each begins at a line " = Title = ", and its other lines are paragraphs."""
    found: list[list[str]] = []
    for line in (line.strip() for file in files for line in file.read_text("utf-8").split("\n")):
        if line.startswith("= ") and line.endswith(" =") and not line.startswith("= ="):
            found.append([])
        if line and found:
            found[-1].append(line)
    return ["\n".join(lines) for lines in found]


def write_text(options: argparse.Namespace) -> tuple[Path, Path]:
    """The text to learn from and that held out, each article a document."""
    every = articles(sorted(options.text.glob("*.txt")))[: options.articles]
    every += [" ".join(row["text"].split()) for file in options.more_text for row in read(file)]
    parts = {"train": [text for i, text in enumerate(every) if i % 10], "test": every[::10]}
    options.output.mkdir(parents=True, exist_ok=True)
    for name, texts in parts.items():
        (options.output / f"{name}.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return options.output / "train.txt", options.output / "test.txt"


def tfbert(*words: Any, **settings: Any) -> None:
    """Runs a command; a setting is an option."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "tfbert", *map(str, words), *given]
    print("$ " + " ".join(command), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def fine_tune(task: str, place: Path, train: Path, test: Path, checkpoint: Path, **settings: Any) -> dict[str, Any]:
    """Trains, or goes on with it, where it is not done; returns its metrics.json."""
    if not (place / "metrics.json").is_file():
        words = ["fine-tune", task, "--resume", "--no-export", "--no-report"]
        tfbert(*words, train=train, test=test, output=place, checkpoint=checkpoint, **settings)
    return json.loads((place / "metrics.json").read_text("utf-8"))


def pretrained(side: str, options: argparse.Namespace, train: Path, test: Path) -> dict[str, Any]:
    """Creates the side's checkpoint and pretrains it for the time there is; its metrics.json."""
    own, begin = SIDES[side], options.output / f"{side}-begin"
    sizes = {**SIZES, "hidden_size": options.hidden_size, "num_hidden_layers": options.num_hidden_layers}
    if not begin.is_dir():
        tfbert("create", begin, text=train, vocab_size=options.vocab_size, **sizes, **own["create"])
    settings = {**PRETRAINING, "learning_rate": own["learning_rate"]}
    epochs = options.epochs
    if epochs is None:
        probe = fine_tune(own["task"], options.output / f"{side}-probe", train, test, begin, **settings, epochs=1)
        epochs = max(1, round(60 * options.minutes / probe["train_seconds"]))
    return fine_tune(own["task"], options.output / side, train, test, begin, **settings, epochs=epochs)


def unigram_entropy(checkpoint: Path, text: Path) -> float:
    """Nats a token, of the text's own frequencies."""
    tokenizer = load_tokenizer(checkpoint)
    texts = [row["text"] for row in read_documents(text)]
    rows = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    counts = Counter(token for row in rows for token in row.ids).values()
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts)


def rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Does what is left, and returns a row for each side."""
    train, test = write_text(options)
    learnt = {side: pretrained(side, options, train, test) for side in SIDES}
    scores: dict[str, dict[str, list[float]]] = {side: {"begin": [], "pretrained": []} for side in SIDES}
    for seed in range(options.seeds):
        for side, found in scores.items():
            for stage, checkpoint in (("begin", f"{side}-begin"), ("pretrained", f"{side}/checkpoint")):
                place = options.output / f"{side}-{stage}-{seed}"
                files = (options.data / "train.csv", options.data / "test.csv", options.output / checkpoint)
                settings = {**FINE_TUNING, "epochs": options.fine_tuning_epochs, "seed": seed}
                got = fine_tune("sequence-classification", place, *files, **settings)
                found[stage].append(got["test"]["accuracy"])
    return [
        {
            "benchmark": "from_nothing",
            "objective": side,
            "epochs": learnt[side]["settings"]["epochs"],
            "train_seconds": learnt[side]["train_seconds"],
            "parameters": learnt[side]["parameters"],
            "unigram_entropy": round(unigram_entropy(options.output / f"{side}-begin", test), 4),
            # Of ELECTRA the masked LM is the generator, which is a quarter as wide.
            "masked_lm_loss": round(learnt[side]["test"].get("generator_loss", learnt[side]["test"]["loss"]), 4),
            "test": {name: round(value, 4) for name, value in learnt[side]["test"].items()},
            "accuracy": {stage: [round(score, 4) for score in found] for stage, found in scores[side].items()},
            "median": {stage: round(statistics.median(found), 4) for stage, found in scores[side].items()},
        }
        for side in SIDES
    ]


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| objective | epochs | training s | masked-LM loss | unigram entropy | fine-tuned from random weights | from the pretrained |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        medians = " | ".join(
            f"{row['median'][stage]:.3f} ({min(row['accuracy'][stage]):.3f} to {max(row['accuracy'][stage]):.3f})"
            for stage in ("begin", "pretrained")
        )
        lines.append(
            f"| {row['objective']} | {row['epochs']} | {row['train_seconds']:,.0f} | {row['masked_lm_loss']:.3f} | "
            f"{row['unigram_entropy']:.3f} | {medians} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    done = options.output / "rows.jsonl"
    if options.table_only:
        found = [json.loads(line) for line in done.read_text("utf-8").splitlines()] if done.is_file() else []
    else:
        found = rows(options)
        done.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    for row in found:
        print(json.dumps(row))
    print(table(found), file=sys.stderr)


if __name__ == "__main__":
    main()

"""Numbers from English into German, "forty-two" into "zweiundvierzig": a T5 from nothing, scored on others, exported, and asked.

    python examples/translation.py

A minute or two on two CPU cores, without a network: tokenizer, model and data begin here.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import tfbert

OUTPUT = Path(__file__).resolve().parents[1] / "saved_models" / "numbers"
TASK = tfbert.Seq2Seq(max_length=16, max_new_tokens=16, num_beams=2, scores=("exact_match",))
ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
EINER = "ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn"
ZEHNER = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig"


def english(n: int) -> str:
    if n >= 100:
        return f"{ONES.split()[n // 100 - 1]} hundred {english(n % 100)}".strip()
    if n < 20:
        return ("", *ONES.split())[n]
    return TENS.split()[n // 10 - 2] + (f"-{english(n % 10)}" if n % 10 else "")


def german(n: int) -> str:
    if n >= 100:
        return f"{EINER.split()[n // 100 - 1]}hundert{german(n % 100)}"
    if n < 20:
        return ("", "eins", *EINER.split()[1:])[n]
    return (f"{EINER.split()[n % 10 - 1]}und" if n % 10 else "") + ZEHNER.split()[n // 10 - 2]


def begin(folder: Path, rows: list[dict]) -> Path:
    """A WordPiece tokenizer learnt from both languages, and a T5 of random weights."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    kind = {"model_type": "t5", "tokenizer": "wordpiece", "vocab_size": 150}
    return tfbert.create_checkpoint(folder, [text for row in rows for text in row.values()], **kind, **sizes)


def train() -> None:
    """Parallel texts in; checkpoint, exact match and SavedModel out."""
    rows = [{"text": english(n), "target": german(n)} for n in range(1, 1000)]
    random.Random(0).shuffle(rows)
    place = OUTPUT.parent / ".begin" / OUTPUT.name
    tuned = tfbert.fine_tune(
        TASK,
        place if place.is_dir() else begin(place, rows),
        rows[200:],
        rows[:40],
        test=rows[40:200],
        directory=OUTPUT,
        epochs=30,
        batch_size=16,
        learning_rate=3e-3,
        overwrite=True,
    )
    print(f"\n{tuned.directory} after {tuned.metrics['train_seconds']:.0f} s of training:")
    for name, score in tuned.metrics["test"].items():
        print(f"    {name:28}{score:.3f}")


def ask() -> None:
    """Loads the SavedModel, nothing else: no checkpoint, no tokenizer."""
    for answer in tfbert.Predictor(OUTPUT)(["forty-two", "seven hundred eighty-one", "nine hundred eleven"]):
        print(f"    {answer['generated_text']}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

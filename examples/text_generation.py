"""Write what a customer may write of a given kind: a GPT-2 from nothing, trained on prompts with what follows, scored, exported, and asked.

    python examples/text_generation.py

Some minutes on two CPU cores, without a network: tokenizer and model begin here, the data lies beside this file. A model as small as this
one learns the words of each kind of message, and little grammar.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "messages"
TASK = tfbert.CausalLM(max_length=64, max_new_tokens=40, do_sample=True, temperature=0.7, top_p=0.9)


def read(part: str) -> list[dict]:
    """The label of a message as the prompt, the message as what follows it: " " begins its first word."""
    rows = tfbert.read(HERE / "data" / f"delivery_{part}.csv")
    return [{"text": f"{row['label']}:", "target": f" {row['text']}"} for row in rows]


def begin(folder: Path, rows: list[dict]) -> Path:
    """A byte-level BPE tokenizer learnt from the messages, and a GPT-2 of random weights."""
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    texts = [row["text"] + row["target"] for row in rows]
    return tfbert.create_checkpoint(folder, texts, model_type="gpt2", vocab_size=1000, **sizes)


def train() -> None:
    """Prompts with targets in; checkpoint, perplexity and SavedModel out."""
    rows = read("train")
    place = OUTPUT.parent / ".begin" / OUTPUT.name
    tuned = tfbert.fine_tune(
        TASK,
        place if place.is_dir() else begin(place, rows),
        rows,
        test=read("test"),
        directory=OUTPUT,
        epochs=15,
        batch_size=16,
        learning_rate=2e-3,
        overwrite=True,
    )
    print(f"\n{tuned.directory} after {tuned.metrics['train_seconds']:.0f} s of training:")
    for name, score in tuned.metrics["test"].items():
        print(f"    {name:28}{score:.3f}")


def ask() -> None:
    """Loads the SavedModel, nothing else: no checkpoint, no tokenizer."""
    predictor = tfbert.Predictor(OUTPUT)
    print(f"\n{predictor.directory} writes:")
    prompts = ["where_is_my_parcel:", "courier_complaint:", "customs_and_charges:"]
    for prompt, answer in zip(prompts, predictor(prompts), strict=True):
        print(f"    {prompt}{answer['generated_text']}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        ask()
    else:
        train()
        subprocess.run([sys.executable, __file__, "ask"], check=True)

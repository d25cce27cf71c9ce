"""Write what a customer may write of a given kind: a GPT-2 from nothing, trained on prompts with what follows, scored, exported, and asked.

    python examples/text_generation.py

Some minutes on two CPU cores, without a network: tokenizer and model begin here, the data lies beside this file. A model as small as this
one learns the words of each kind of message, and little grammar.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tokenizers
import transformers

import tfbert
from tfbert import models

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "messages"
END = "<|endoftext|>"
TASK = tfbert.CausalLM(max_length=64, max_new_tokens=40, do_sample=True, temperature=0.7, top_p=0.9)


def read(part: str) -> list[dict]:
    """The label of a message as the prompt, the message as what follows it: " " begins its first word."""
    rows = tfbert.read(HERE / "data" / f"delivery_{part}.csv")
    return [{"text": f"{row['label']}:", "target": f" {row['text']}"} for row in rows]


def begin(folder: Path, rows: list[dict]) -> Path:
    """A byte-level BPE tokenizer learnt from the messages, and a GPT-2 of random weights."""
    backend = tokenizers.ByteLevelBPETokenizer()
    backend.train_from_iterator([row["text"] + row["target"] for row in rows], 1000, 2, special_tokens=[END])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, bos_token=END, eos_token=END)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=96, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    model = transformers.TFGPT2LMHeadModel(config)
    model.build_in_name_scope()
    models.save(model, folder, tokenizer)
    return folder


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

"""tfbert inspect CHECKPOINT [TEXT [TEXT_PAIR]]: what a checkpoint is, and what its tokenizer makes of a text."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from tfbert import models, tokenization
from tfbert.command_line.arguments import Parser

NEEDS_TENSORFLOW = False


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert inspect`."""
    parser = Parser(
        prog="tfbert inspect", description="Says what a checkpoint is; with a text, how its tokenizer splits that."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, a hub name, or all-MiniLM-L6-v2")
    parser.add_argument("text", nargs="?", metavar="TEXT")
    parser.add_argument("text_pair", nargs="?", metavar="TEXT_PAIR")
    parser.add_argument(
        "--freeze", metavar="NAME", help="count what would still learn with these layers frozen, as for fine-tune"
    )
    return parser.parse(argv)


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Emits the description, and under "tokens" one object per token of the text."""
    result = models.describe(arguments.checkpoint, freeze=arguments.freeze)
    if arguments.text is not None:
        tokenizer = tokenization.load_tokenizer(arguments.checkpoint)
        result = {**result, "tokens": tokens(tokenizer, arguments.text, arguments.text_pair)}
    emit(result)


def tokens(tokenizer, text: str, text_pair: str | None = None) -> list[dict]:
    """Each token with its id, type id, mask, and where it stands: `start` and `end` in code points of its own text (null if special)."""
    encoded = tokenizer(
        text, text_pair, return_offsets_mapping=True, return_special_tokens_mask=True, return_token_type_ids=True
    )
    columns = zip(
        tokenizer.convert_ids_to_tokens(encoded["input_ids"]),
        encoded["input_ids"],
        encoded["token_type_ids"],
        encoded["attention_mask"],
        encoded["offset_mapping"],
        encoded["special_tokens_mask"],
    )
    return [
        {
            "token": token,
            "id": number,
            "type_id": type_id,
            "mask": mask,
            "start": None if special else start,
            "end": None if special else end,
        }
        for token, number, type_id, mask, (start, end), special in columns
    ]

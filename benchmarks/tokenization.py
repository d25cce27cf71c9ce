"""Times the graph tokenizer beside the Hugging Face fast tokenizer, on the same sentences and cores.

    python benchmarks/tokenization.py [--data FILE] [--checkpoint NAME_OR_FOLDER] [--rounds 15] [--batch 1000] [--max-length 128]

FILE has one sentence a line (default: the texts of examples/data/delivery_train.csv). Rounds alternate, so that whatever
else the machine does falls on all alike; medians are of rounds, and a ratio is taken within each round. Prints one JSON
object: sentences a second of

    graph        the tf.function of an export: strings in, input_ids, attention_mask and token_type_ids out
    tokenizer    tokenizer(sentences, padding=True, truncation=True), the same arrays as TensorFlow takes them
    encode_batch_fast    the Rust code alone, without offsets, padding or arrays
    encode       tfbert.tokenization.encode, which training uses: flat arrays without padding
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import time
from pathlib import Path

import tfbert
from tfbert._compat import tf
from tfbert.tokenization import encode, graph_tokenizer

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "data" / "delivery_train.csv"


def sentences(place: Path, count: int) -> list[str]:
    """The first `count` sentences of at least three words, from the beginning again where there are fewer."""
    if place.suffix == ".csv":
        with place.open(encoding="utf-8", newline="") as file:
            found = [row["text"] for row in csv.DictReader(file)]
    else:
        found = [line.strip() for line in place.read_text(encoding="utf-8", errors="replace").splitlines()]
    found = [text for text in found if len(text.split()) >= 3]
    return (found * (count // len(found) + 1))[:count]


def measure(contenders: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round; two rounds of warm-up are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 2):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            if i >= 2:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=EXAMPLES)
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--max-length", type=int, default=128)
    arguments = parser.parse_args(argv)

    texts = sentences(arguments.data, arguments.batch)
    tokenizer = tfbert.load_tokenizer(arguments.checkpoint)
    graph = graph_tokenizer(tokenizer)
    function = tf.function(
        lambda text: graph(text, max_length=arguments.max_length), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    strings, backend = tf.constant(texts), tokenizer.backend_tokenizer
    options = {"padding": True, "truncation": True, "max_length": arguments.max_length}
    expected = tokenizer(texts, **options)
    for name, tensor in function(strings).items():
        assert tensor.numpy().tolist() == expected[name], f"{name} differs"
    contenders = {
        "graph": lambda: [tensor.numpy() for tensor in function(strings).values()],
        "tokenizer": lambda: tokenizer(texts, return_tensors="np", **options),
        "encode_batch_fast": lambda: backend.encode_batch_fast(texts),
        "encode": lambda: encode(tokenizer, texts, max_length=arguments.max_length),
    }
    seconds = measure(contenders, arguments.rounds)
    speed = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    ratios = {}
    for name in ("tokenizer", "encode_batch_fast"):
        each = sorted(theirs / ours for theirs, ours in zip(seconds[name], seconds["graph"], strict=True))
        quarter = len(each) // 4
        ratios[f"graph_over_{name}"] = {
            "median": round(statistics.median(each), 2),
            "quartiles": [round(each[quarter], 2), round(each[-1 - quarter], 2)],
        }
    print(
        json.dumps(
            {
                "data": arguments.data.name,
                "batch": len(texts),
                "characters": sum(map(len, texts)),
                "rounds": arguments.rounds,
                "cores": len(os.sched_getaffinity(0)),
                "sentences_per_second": {name: round(value) for name, value in speed.items()},
                **ratios,
            }
        )
    )


if __name__ == "__main__":
    main()

"""Counts the strings on which the graph tokenizer and the Rust tokenizer differ, in ids, offsets or word numbers.

    python benchmarks/parity.py ../shared/data [TOKENIZER ...]

Reads tokenizers/TOKENIZER under the folder (default: the four BERT vocabularies, GPT-2's, RoBERTa's, ALBERT's, XLNet's and a
T5's). The strings are every code point c as "a{c}b {c}" (surrogates are no text), the lines of emoji-test.txt, the big list of
naughty strings, the Declaration of Human Rights in 388 languages and WikiText-2, each line also in NFC and NFD. Prints one JSON
object for each tokenizer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers.models import Unigram

import tfbert
from tfbert._compat import tf
from tfbert.tokenization import graph_tokenizer

TOKENIZERS = (
    "bert-base-uncased",
    "bert-base-cased",
    "bert-base-multilingual-cased",
    "bert-base-chinese",
    "gpt2",
    "roberta-base",
    "albert_hf-fixture",
    "xlnet",
    "legal_t5_small_fr_en",
)
# What reads the two files of a byte-level vocabulary, or the one of SentencePiece, which do not say it themselves.
BYTE_LEVEL = {"gpt2": "GPT2Tokenizer", "roberta-base": "RobertaTokenizer"}
SENTENCEPIECE = {
    "albert_hf-fixture": "AlbertTokenizer",
    "xlnet": "XLNetTokenizer",
    "legal_t5_small_fr_en": "T5Tokenizer",
}


def load(folder: Path):
    """The tokenizer of a folder with vocab.txt, with the vocab.json and merges.txt of one in BYTE_LEVEL, or spiece.model."""
    if folder.name not in BYTE_LEVEL and not (folder / "spiece.model").exists():
        return tfbert.load_tokenizer(folder)
    with tempfile.TemporaryDirectory() as place:
        for name in ("vocab.json", "merges.txt") if folder.name in BYTE_LEVEL else ("spiece.model",):
            shutil.copy(folder / name, place)
        kind = (BYTE_LEVEL | SENTENCEPIECE)[folder.name]
        (Path(place) / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        return tfbert.load_tokenizer(place)


def code_points() -> list[str]:
    """Every code point but the surrogates, after a letter and alone."""
    return [f"a{chr(c)}b {chr(c)}" for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def lines(data: Path) -> list[str]:
    """The real lines, as they are and in both normal forms; each once."""
    found = [
        *_file(data / "unicode" / "emoji-test.txt"),
        *json.loads((data / "unicode" / "blns.json").read_text("utf-8")),
    ]
    for name in ("valid.txt", "test.txt"):
        found += _file(data / "wikitext2" / name)
    for place in sorted((data / "udhr").glob("*.zip")):
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                found += archive.read(name).decode("utf-8", "replace").splitlines()
    forms = (
        form
        for line in found
        for form in (line, unicodedata.normalize("NFC", line), unicodedata.normalize("NFD", line))
    )
    return list(dict.fromkeys(line for line in forms if line.strip()))


def _file(place: Path) -> list[str]:
    return place.read_text(encoding="utf-8").splitlines()


def differing(graph, tokenizer, texts: Iterable[str]) -> list[str]:
    """The texts on which the two tokenizers do not agree entirely."""
    wrong = []
    # Unigram's pieces hold the space before a word, which is left out here.
    spaced = isinstance(tokenizer.backend_tokenizer.model, Unigram)
    pieces = tf.function(lambda text: graph.ids_and_offsets(text), input_signature=[tf.TensorSpec([None], tf.string)])
    for part in _parts(list(texts), 8192):
        found = zip(*(tensor.to_list() for tensor in pieces(tf.constant(part))), strict=True)
        encoded = tokenizer.backend_tokenizer.encode_batch(part, add_special_tokens=False)
        for text, (ids, start, end, word), expected in zip(part, found, encoded, strict=True):
            places = [(b - len(text[a:b].lstrip()), b) for a, b in expected.offsets] if spaced else expected.offsets
            if (ids, list(zip(start, end, strict=True)), word) != (expected.ids, places, expected.word_ids):
                wrong.append(text)
    return wrong


def _parts(texts: list[str], size: int) -> Iterator[list[str]]:
    return (texts[i : i + size] for i in range(0, len(texts), size))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("tokenizer", nargs="*", default=TOKENIZERS)
    arguments = parser.parse_args(argv)
    points, real = code_points(), lines(arguments.data)
    for name in arguments.tokenizer:
        tokenizer = load(arguments.data / "tokenizers" / name)
        graph = graph_tokenizer(tokenizer)
        wrong = differing(graph, tokenizer, points) + differing(graph, tokenizer, real)
        for text in wrong[:10]:
            print(f"differs: {text!a}", file=sys.stderr)
        print(
            json.dumps({"tokenizer": name, "code_points": len(points), "lines": len(real), "differences": len(wrong)}),
            flush=True,
        )


if __name__ == "__main__":
    main()

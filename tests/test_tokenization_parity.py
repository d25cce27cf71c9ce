"""The graph tokenizer equals the Rust tokenizer on real vocabularies: every code point, every script, hard and plain lines.

`python benchmarks/parity.py ../shared/data` runs more of the same (all lines, all normal forms) and prints the counts.
"""

from __future__ import annotations

import importlib.util
import json
import unicodedata
import zipfile
from pathlib import Path

import pytest

from tfbert.tokenization import graph_tokenizer

_SPEC = importlib.util.spec_from_file_location(
    "parity", Path(__file__).resolve().parents[1] / "benchmarks" / "parity.py"
)
parity = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(parity)

pytestmark = pytest.mark.data


@pytest.fixture(scope="module", params=[name for name in parity.TOKENIZERS if name not in parity.BYTE_LEVEL])
def both(request, data):
    tokenizer = parity.load(data / "tokenizers" / request.param)
    return graph_tokenizer(tokenizer), tokenizer


@pytest.mark.parametrize("both", ["bert-base-uncased", "bert-base-cased"], indirect=True)
def test_every_code_point(both):
    """All that are assigned or could matter; of the long uniform runs, each 64th. The benchmark takes all, for all tokenizers."""
    graph, tokenizer = both
    rare = [range(0x30000, 0xE0000), range(0xE1000, 0x110000)]
    points = (c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF)
    texts = [f"a{chr(c)}b {chr(c)}" for c in points if c % 64 in (0, 63) or not any(c in run for run in rare)]
    assert parity.differing(graph, tokenizer, texts) == []


def test_emoji_and_naughty_strings(both, data):
    texts = (data / "unicode" / "emoji-test.txt").read_text(encoding="utf-8").splitlines()
    texts += json.loads((data / "unicode" / "blns.json").read_text(encoding="utf-8"))
    assert parity.differing(*both, texts) == []


def test_every_language_of_the_declaration_of_human_rights(both, data):
    """The first four lines in each of 388 languages, in both normal forms."""
    texts = []
    for place in sorted((data / "udhr").glob("*.zip")):
        with zipfile.ZipFile(place) as archive:
            for name in archive.namelist():
                texts += archive.read(name).decode("utf-8", "replace").splitlines()[:4]
    texts += [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in texts]
    assert len(texts) > 5000
    assert parity.differing(*both, texts) == []


@pytest.mark.parametrize("both", ["bert-base-uncased", "bert-base-cased", "albert_hf-fixture"], indirect=True)
def test_plain_english(both, data):
    lines = (data / "wikitext2" / "valid.txt").read_text(encoding="utf-8").splitlines()
    lines += (data / "wikitext2" / "test.txt").read_text(encoding="utf-8").splitlines()
    assert parity.differing(*both, [line for line in lines if line.strip()]) == []

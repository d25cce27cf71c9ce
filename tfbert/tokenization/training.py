"""A tokenizer learnt from text, by the trainers of the Hugging Face tokenizers library; the same text gives the same bytes."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers

from tfbert._compat import transformers
from tfbert.errors import InputError, suggest


@dataclasses.dataclass(frozen=True)
class Style:
    """The special tokens of a kind of model, and where they stand.

    Args:
        names: special token -> its text, in the order of their ids, from 0 on.
        single: the tokenizers' template of a text.
        pair: of two texts.
        lowercase: whether the kinds that can make capitals small do so by default.
        sentinels: how many `<extra_id_0>`, `<extra_id_1>`, ... come after all other tokens, the first of them last, as T5's.
    """

    names: Mapping[str, str]
    single: str
    pair: str
    lowercase: bool = True
    sentinels: int = 0


STYLES = {
    "bert": Style(
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
    ),
    "t5": Style({"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, "$A </s>", "$A </s> $B </s>", False, 100),
    "gpt2": Style({"eos": "<|endoftext|>"}, "$A", "$A $B", False),
}
LARGEST_ALPHABET = 1000  # the trainers' own limit
_STEP = 0.0001  # between the scores of characters that Unigram's trainer has no piece for


def train_tokenizer(
    texts: Iterable[str],
    kind: str = "wordpiece",
    *,
    vocab_size: int,
    lowercase: bool | None = None,
    min_frequency: int = 2,
    style: str = "bert",
):
    """Learns a tokenizer from texts.

    Args:
        texts: strings; read several times.
        kind: "wordpiece" (BERT's: words are cut at spaces, punctuation and ideographs), "bpe" (of bytes, as RoBERTa's and GPT-2's) or
            "unigram" (SentencePiece's model; Kudo 2018).
        vocab_size: how many tokens, special ones included; exactly so many come out.
        lowercase: small letters only, without accents, as BERT's uncased models and ALBERT have it; None (default): True in the style of
            BERT, but for bpe, which reads a text as it is.
        min_frequency: how often a piece must occur to become one (default 2); unigram does without.
        style: whose special tokens: "bert" (default), [CLS] text [SEP] and [CLS] text [SEP] text_pair [SEP]; "t5", text </s>, with a
            hundred sentinels beyond vocab_size; or "gpt2", whose <|endoftext|> stands between texts, for bpe alone.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.

    Raises:
        InputError: no such kind, lowercase for bpe, a vocabulary below the alphabet, or a text too small for the vocabulary.

    Example:
        >>> tokenizer = train_tokenizer(["a rose is a rose is a rose"] * 2, vocab_size=18)
        >>> tokenizer.tokenize("A rose"), tokenizer("a")["input_ids"]
        (['a', 'rose'], [2, 8, 3])
    """
    if kind not in KINDS:
        raise InputError(f"tokenizer is {kind!r}; it must be one of {', '.join(KINDS)}.{suggest(kind, KINDS)}")
    if kind == "bpe" and lowercase:
        raise InputError(
            "lowercase is for wordpiece and unigram; bpe, of bytes, reads a text as it is; leave lowercase out"
        )
    if style not in STYLES:
        raise InputError(f"style is {style!r}; it must be one of {', '.join(STYLES)}.{suggest(style, STYLES)}")
    if style == "gpt2" and kind != "bpe":
        raise InputError(
            f"tokenizer is {kind!r}, which needs a token for what it does not know, and GPT-2 has none; take 'bpe'"
        )
    own = STYLES[style]
    texts, lowercase = list(texts), (kind != "bpe" and own.lowercase) if lowercase is None else lowercase
    backend = KINDS[kind](texts, vocab_size, lowercase, min_frequency, own)
    found = backend.get_vocab_size()
    if found < vocab_size:
        lines = sum(text.count("\n") + 1 for text in texts)
        raise InputError(
            f"the text, {lines} {'line' if lines == 1 else 'lines'} of {sum(map(len, texts)):,} characters, has pieces for a vocabulary of "
            f"{found} tokens only, and vocab_size is {vocab_size}; give more text, or a vocab_size of at most {found}"
        )
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(own.sentinels))]
    backend.add_special_tokens(sentinels)
    names: dict = {f"{name}_token": token for name, token in own.names.items()}
    if sentinels:
        names["additional_special_tokens"] = sentinels[::-1]
    if style == "bert" and kind == "wordpiece":
        return transformers.BertTokenizerFast(tokenizer_object=backend, do_lower_case=lowercase, **names)
    if style == "gpt2":
        names |= {"bos_token": names["eos_token"], "unk_token": names["eos_token"]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _wordpiece(
    texts: list[str], vocab_size: int, lowercase: bool, min_frequency: int, style: Style
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=style.names["unk"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    alphabet = _alphabet(backend, texts)

    def train(first: list[str], size: int) -> dict[str, int]:
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=min_frequency,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            special_tokens=first,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return backend.get_vocab()

    # The trainer numbers the characters within words in the order of a hash table, which differs from run to run, and settles ties by
    # these numbers. So it is run without merges first, to have these characters, and then told them as it is told special tokens.
    within = sorted(token for token in train([], 0) if token.startswith("##") and len(token) == 3)
    _check_size(vocab_size, len(style.names) + len(alphabet) + len(within))
    found = train([*style.names.values(), *within], vocab_size)
    backend.model = tokenizers.models.WordPiece(found, unk_token=style.names["unk"])
    return _with_specials(tokenizers.Tokenizer.from_str(_without_added(backend)), style)


def _bpe(texts: list[str], vocab_size: int, lowercase: bool, min_frequency: int, style: Style) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _check_size(vocab_size, len(style.names) + len(alphabet))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=alphabet,
        special_tokens=list(style.names.values()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend = _with_specials(backend, style)
    trim = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)  # no piece has the space before its word
    backend.post_processor = processors.Sequence([trim, backend.post_processor])
    return backend


def _unigram(
    texts: list[str], vocab_size: int, lowercase: bool, min_frequency: int, style: Style
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram())
    if lowercase:  # as ALBERT's
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    alphabet = _alphabet(backend, texts)
    _check_size(vocab_size, len(style.names) + len(alphabet) + 1)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=list(style.names.values()),
        unk_token=style.names["unk"],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    pieces = _in_order(json.loads(backend.to_str())["model"]["vocab"], len(style.names))
    backend.model = tokenizers.models.Unigram(pieces, unk_id=list(style.names).index("unk"))
    return _with_specials(tokenizers.Tokenizer.from_str(_without_added(backend)), style)


KINDS: dict[str, Callable[[list[str], int, bool, int, Style], tokenizers.Tokenizer]] = {
    "wordpiece": _wordpiece,
    "bpe": _bpe,
    "unigram": _unigram,
}


def _alphabet(backend: tokenizers.Tokenizer, texts: list[str]) -> list[str]:
    """The characters of the normalized texts, the most frequent LARGEST_ALPHABET of them, in the order of their code points."""
    normalize = backend.normalizer.normalize_str if backend.normalizer else str
    counts = Counter(itertools.chain.from_iterable(map(normalize, texts)))
    often = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    return sorted(character for _, character in often[:LARGEST_ALPHABET])


def _check_size(vocab_size: int, least: int) -> None:
    if vocab_size < least:
        raise InputError(
            f"vocab_size is {vocab_size}, but special tokens and the characters of the text are {least} already; give more than that"
        )


def _in_order(pieces: list, specials: int) -> list[tuple[str, float]]:
    """Unigram's pieces with equal scores in the order of their characters, as the trainer has them in that of a hash table.

    So are the characters that it has no piece for: it gives them the lowest score, that and a step, that and two steps, ... And its sums
    of probabilities, in whatever order, differ in the last digits.
    """
    special, pieces = pieces[:specials], pieces[specials:]
    lowest = min(score for _, score in pieces)
    steps = {piece: (score - lowest) / _STEP for piece, score in pieces if len(piece) == 1}
    added = sorted(
        piece for piece, step in steps.items() if step < len(steps) and abs(step - round(step)) < 1e-6
    )  # and perhaps one that has this score by chance, which then loses a few steps
    scores = dict(pieces) | {piece: lowest + i * _STEP for i, piece in enumerate(added)}
    rounded = [(piece, round(score, 6)) for piece, score in scores.items()]
    return [*map(tuple, special), *sorted(rounded, key=lambda pair: (-pair[1], pair[0]))]


def _without_added(backend: tokenizers.Tokenizer) -> str:
    """tokenizer.json without what the trainer took for special tokens."""
    return json.dumps({**json.loads(backend.to_str()), "added_tokens": []})


def _with_specials(backend: tokenizers.Tokenizer, style: Style) -> tokenizers.Tokenizer:
    backend.add_special_tokens(list(style.names.values()))
    placed = [token for token in style.names.values() if token in style.single]
    backend.post_processor = processors.TemplateProcessing(
        single=style.single,
        pair=style.pair,
        special_tokens=[(token, backend.token_to_id(token)) for token in placed],
    )
    return backend

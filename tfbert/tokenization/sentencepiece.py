"""SentencePiece tokenizers as TensorFlow ops, with the ids and offsets of the Hugging Face fast tokenizer, for every string.

The model is trained with the fast tokenizer, which is not SentencePiece to the last string: it normalizes by graphemes, adds up scores in
float64, and cuts at spaces first. Here its steps are repeated: added tokens (".", "(" and others of ALBERT and XLNet) are taken out of
the text, the rest is normalized (normalizing.py), cut into words, and each word into pieces (unigram.py). No operation is a custom one.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from tfbert._compat import tf
from tfbert.tokenization.characters import CODE_POINTS, WHITE_SPACE
from tfbert.tokenization.code_points import FIRST_MARKER, MARKERS, CodePointTable, code_point_table
from tfbert.tokenization.normalizing import SPACE, Normalization, normalization, white_space
from tfbert.tokenization.rows import Pieces
from tfbert.tokenization.template import template_of
from tfbert.tokenization.tokenizer_graph import TokenizerGraph
from tfbert.tokenization.trie import build_trie
from tfbert.tokenization.unigram import Unigram, unknown_score
from tfbert.tokenization.vocabulary import Vocabulary

# Markers among the characters: before a text, before what follows an added token, and the added tokens themselves.
_TEXT, _AGAIN, _ADDED = FIRST_MARKER, FIRST_MARKER + 1, FIRST_MARKER + 2


class _Words(NamedTuple):
    """The characters of all words of a batch."""

    codes: tf.Tensor  # int32 [M], the code points of all texts
    row_splits: tf.Tensor  # int32 [B + 1] where each text begins among the code points, its marker included
    value: tf.Tensor  # int32 [K]
    origin: tf.Tensor  # int32 [K], the code point that each counts as
    begins: tf.Tensor  # bool [K], where a word begins


@dataclasses.dataclass(frozen=True)
class Spacing:
    """How words are cut: by white space (WhitespaceSplit) or not, and by Metaspace's replacement of the space.

    Args:
        white: whether white space is removed first.
        replacement: the code point that stands for a space, and before words.
        prepend: "always", "first" or "never".
        split: whether words begin at each replacement.
    """

    white: bool
    replacement: int
    prepend: str
    split: bool

    def __call__(self, codes, value, origin) -> tuple:
        """(value, origin, begins) of the words: int32, int32, bool [K]."""
        marker = value >= FIRST_MARKER
        bound = (marker & (value < _ADDED)) | ((white_space()(value) > 0) if self.white else False)
        after = tf.concat([bound[1:], [True]], 0) | tf.concat([marker[1:], [True]], 0)
        value = tf.where(value == SPACE, self.replacement, value)
        following = tf.concat([value[1:], [_TEXT]], 0)
        next_origin = tf.concat([origin[1:], origin[-1:]], 0)
        # What stood before a word, a marker or white space, becomes the replacement.
        prefix = bound & ~after & (following != self.replacement)
        if self.prepend == "first":
            prefix &= tf.gather(codes, tf.maximum(next_origin - 1, 0)) == _TEXT
        elif self.prepend == "never":
            prefix &= False
        value = tf.where(prefix, self.replacement, value)
        origin = tf.where(prefix, next_origin, origin)
        begins = prefix | marker | tf.concat([[True], (bound & ~prefix)[:-1]], 0)
        if self.split:
            begins |= value == self.replacement
        stay = prefix | ~bound
        return tuple(tf.gather(part, tf.where(stay)[:, 0]) for part in (value, origin, begins))


@dataclasses.dataclass(frozen=True)
class Added:
    """The tokens that are taken out of a text before anything else, as the strings they are.

    Args:
        tokens: the code points of each; none is part of another or may overlap one.
        ids: int32 [A].
        lengths: int32 [A], in code points.
        single: the marker of a token of one code point, for that code point; 0 for all others.
    """

    tokens: tuple[tuple[int, ...], ...]
    ids: np.ndarray
    lengths: np.ndarray
    single: CodePointTable

    def __call__(self, codes, origin) -> tuple:
        """(codes, origin) with a marker for each added token and one after it, int32 [N + A]."""
        marker = self.single(codes)
        stay = None
        for number, token in enumerate(self.tokens):
            if len(token) > 1:
                padded = tf.concat([codes, tf.fill([len(token)], _TEXT)], 0)
                here = tf.reduce_all([padded[i : tf.size(codes) + i] == code for i, code in enumerate(token)], 0)
                marker = tf.where(here, _ADDED + number, marker)
                inside = [tf.pad(here, [[i, 0]])[: tf.size(here)] for i in range(1, len(token))]
                gone = tf.reduce_any(inside, 0)
                stay = ~gone if stay is None else stay & ~gone
        added = marker > 0
        codes = tf.where(added, marker, codes)
        if stay is not None:
            stay = tf.where(stay)[:, 0]
            codes, origin, added = (tf.gather(part, stay) for part in (codes, origin, added))
        place = tf.range(tf.size(codes)) + tf.cumsum(tf.cast(added, tf.int32), exclusive=True)
        size = tf.size(codes) + tf.reduce_sum(tf.cast(added, tf.int32))
        again = tf.fill([size], _AGAIN)
        codes = tf.tensor_scatter_nd_update(again, place[:, tf.newaxis], codes)
        return codes, tf.tensor_scatter_nd_update(tf.zeros_like(again), place[:, tf.newaxis], origin)


@dataclasses.dataclass(frozen=True)
class SentencePieceGraph(TokenizerGraph):
    """A SentencePiece tokenizer; bytes that are not UTF-8 are read as U+FFFD, which its normalizer keeps or not."""

    added: Added | None
    normalization: Normalization
    spacing: Spacing
    letters: CodePointTable
    model: Unigram = dataclasses.field(repr=False)
    unknown: int

    def tokenize(self, text):
        return self.ids_and_offsets(text).ids

    def ids_and_offsets(self, text) -> Pieces:
        words = self._words(tf.convert_to_tensor(text, tf.string))
        starts, ids, begins = self.model(self.letters(words.value), words.begins)
        value = tf.gather(words.value, starts)
        if self.added:
            ids = tf.where(value >= _ADDED, tf.gather(self.added.ids, tf.maximum(value - _ADDED, 0)), ids)
        # Unknown characters after each other in a word are one piece.
        apart = (ids != self.unknown) | tf.gather(begins, starts)
        apart |= tf.concat([[True], ids[:-1] != self.unknown], 0)
        apart = tf.where(apart)[:, 0]
        starts, ids, value = (tf.gather(part, apart) for part in (starts, ids, value))
        start = tf.gather(words.origin, starts)
        last = tf.concat([starts[1:], [tf.size(words.value)]], 0)[: tf.size(starts)] - 1
        end = tf.gather(words.origin, last) + 1
        if self.added:
            end = tf.where(value >= _ADDED, start + tf.gather(self.added.lengths, tf.maximum(value - _ADDED, 0)), end)
        splits = tf.cast(tf.searchsorted(start, words.row_splits), tf.int64)
        row = tf.ragged.row_splits_to_segment_ids(splits, out_type=tf.int32)
        word = tf.gather(tf.cumsum(tf.cast(begins, tf.int32)), starts)
        first_word = tf.gather(tf.concat([word, [0]], 0), splits[:-1])
        start = tf.minimum(_solid(words.codes, start), end)
        origin = tf.gather(words.row_splits, row) + 1
        flat = (ids, start - origin, end - origin, word - tf.gather(first_word, row))
        return Pieces(*(tf.RaggedTensor.from_row_splits(values, splits, validate=False) for values in flat))

    def _words(self, text) -> _Words:
        """Decodes, takes out added tokens, normalizes and cuts into words."""
        # A character before each text, and one after the last, become markers; texts are kept apart by them.
        decoded = tf.strings.unicode_decode(tf.strings.join([" ", text]), "UTF-8", errors="replace")
        row_splits = tf.cast(decoded.row_splits, tf.int32)
        codes = tf.concat([decoded.values, [_TEXT]], 0)
        codes = tf.tensor_scatter_nd_update(
            codes, row_splits[:-1, tf.newaxis], tf.fill([tf.size(row_splits) - 1], _TEXT)
        )
        value, origin = codes, tf.range(tf.size(codes))
        if self.added:
            value, origin = self.added(value, origin)
        value, place = self.normalization(value)
        value, origin, begins = self.spacing(codes, value, tf.gather(origin, place))
        return _Words(codes, row_splits, value, origin, begins)


def _solid(codes, places):
    """From each place on, the next code point that is no white space; their number where there is none."""
    white = tf.reduce_any(codes[:, tf.newaxis] == tf.constant(WHITE_SPACE), 1)
    solid = tf.cast(tf.where(~white)[:, 0], tf.int32)
    return tf.gather(tf.concat([solid, [tf.size(codes)]], 0), tf.searchsorted(solid, places))


def sentencepiece_graph(tokenizer, settings: dict) -> SentencePieceGraph:
    """Makes the graph of a tokenizer that `problem` finds nothing wrong with; `settings` are its tokenizer.json's."""
    return SentencePieceGraph(
        template=template_of(tokenizer),
        vocabulary=Vocabulary(tokenizer),
        added=_added(settings),
        normalization=normalization(settings["normalizer"]),
        spacing=_spacing(settings["pre_tokenizer"])[0],
        **_model(settings, tokenizer.backend_tokenizer.model),
    )


def problem(settings: dict) -> str | None:
    """What keeps a Unigram tokenizer from being in the graph exactly; None for nothing."""
    model = settings["model"]
    scores = [score for _, score in model["vocab"]]
    if model["unk_id"] is None:
        return "it has no unknown token"
    if model.get("byte_fallback"):
        return "it turns unknown characters into bytes"
    if min(scores) > 10:
        return "all its scores are above 10"
    if any(not entry for entry, _ in model["vocab"]):
        return "it has an empty piece"
    try:
        normalization(settings["normalizer"])
        _spacing(settings["pre_tokenizer"])
        _added(settings)
    except ValueError as error:
        return f"it {error}"
    return None


def _added(settings: dict) -> Added | None:
    tokens = {token["content"]: token for token in settings["added_tokens"]}
    plain = [token for token in tokens.values() if not token["special"]]
    for token in plain:
        if token["normalized"] or token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise ValueError(
                f"has the added token {token['content']!r}, which is looked for in normalized text, with the spaces beside it or as a word"
            )
        for other in tokens:
            if _overlap(token["content"], other):
                raise ValueError(f"has the added tokens {token['content']!r} and {other!r}, which may overlap")
    if not plain:
        return None
    if len(plain) > MARKERS - 2:
        raise ValueError(f"has {len(plain)} added tokens that are not special")
    codes = tuple(tuple(map(ord, token["content"])) for token in plain)
    single = np.zeros(CODE_POINTS + MARKERS, np.int32)
    for number, token in enumerate(codes):
        if len(token) == 1:
            single[token[0]] = _ADDED + number
    ids, lengths = np.array([token["id"] for token in plain], np.int32), np.array(list(map(len, codes)), np.int32)
    return Added(codes, ids, lengths, code_point_table(single))


def _overlap(token: str, other: str) -> bool:
    """Whether the two may be found at places of a text that overlap."""
    if token != other and (token in other or other in token):
        return True
    sizes = range(1, min(len(token), len(other)))
    return any(token[-size:] == other[:size] or other[-size:] == token[:size] for size in sizes)


def _spacing(settings: dict | None) -> tuple[Spacing, list[str]]:
    """How words are cut, and the strings that are kept from being found in a text."""
    parts = settings["pretokenizers"] if settings and settings["type"] == "Sequence" else [settings]
    parts, guarded = list(parts), []
    if parts[-1] and parts[-1]["type"] == "Split":
        guarded = _guarded(parts.pop())
    white = bool(parts) and bool(parts[0]) and parts[0]["type"] == "WhitespaceSplit"
    if white:
        parts.pop(0)
    if len(parts) != 1 or not parts[0] or parts[0]["type"] != "Metaspace":
        kinds = [part["type"] if part else "nothing" for part in parts]
        raise ValueError(f"cuts words with {' and '.join(kinds) or 'WhitespaceSplit'}, not with Metaspace")
    part = parts[0]
    return Spacing(white, ord(part["replacement"]), part["prepend_scheme"], part.get("split", True)), guarded


_GUARD = re.compile(r"(\\?.)\(\?=((?:\\.|[^\\()|])+)\)", re.DOTALL)


def _guarded(part: dict) -> list[str]:
    """The strings of the cut that `load_tokenizer` makes; ValueError for any other."""
    pattern = part["pattern"].get("Regex", "")
    found = [re.sub(r"\\(.)", r"\1", a + b, flags=re.DOTALL) for a, b in _GUARD.findall(pattern)]
    again = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in found)
    if part["behavior"] != "MergedWithPrevious" or part["invert"] or again != pattern:
        raise ValueError(f"cuts words with the pattern {pattern or part['pattern']!r}")
    return found


def _model(settings: dict, rust) -> dict:
    """The fields of the graph that the vocabulary gives."""
    model = settings["model"]
    by_piece = {piece: i for i, (piece, _) in enumerate(model["vocab"])}  # of equal ones the last, as in Rust
    entries = list(by_piece)
    scores = np.array([model["vocab"][i][1] for i in by_piece.values()])
    every = np.array([score for _, score in model["vocab"]])
    scores = np.append(scores, unknown_score(every))
    alphabet = {ch: i for i, (ch, _) in enumerate(Counter(ch for entry in entries for ch in entry).most_common(), 1)}
    letters = np.zeros(CODE_POINTS + MARKERS, np.int32)
    letters[[ord(ch) for ch in alphabet]] = list(alphabet.values())
    guards = _spacing(settings["pre_tokenizer"])[1]
    inside = re.compile("|".join(map(re.escape, guards)) or "(?!)")
    whole = [len(found := rust.tokenize(entry)) == 1 and found[0].id == i for entry, i in by_piece.items()]
    search = Unigram(
        trie=build_trie([tuple(alphabet[ch] for ch in entry) for entry in entries], len(alphabet)),
        scores=scores,
        ids=np.array([*by_piece.values(), model["unk_id"]], np.int32),
        whole=np.array(whole) & np.array([not inside.search(entry) for entry in entries]),
        reach=max(map(len, entries)),
        guarded=np.array([entry in set(guards) for entry in entries]),
    )
    return {"letters": code_point_table(letters), "model": search, "unknown": model["unk_id"]}

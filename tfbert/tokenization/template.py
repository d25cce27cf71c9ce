"""Where the special tokens stand around one text or two, and rows cut to length and padded, as TensorFlow ops."""

from __future__ import annotations

import dataclasses

import tokenizers

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.tokenization.truncation import keep, longest_first


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a row: fixed special tokens, or the tokens of the first (`text` 0) or second (1) text.

    Args:
        ids: the special tokens; empty for a text.
        type_id: the token type of the whole stretch.
        text: which text stands here, or None for special tokens.
    """

    ids: tuple[int, ...]
    type_id: int
    text: int | None


@dataclasses.dataclass(frozen=True)
class Template:
    """The rows of one tokenizer: [CLS] text [SEP] and [CLS] text [SEP] text_pair [SEP] for BERT.

    Args:
        single: the segments of a row with one text.
        pair: the segments of a row with two.
        pad_id: the token that fills a row up; its type is 0.
        cls_last: whether a row ends with [CLS], as XLNet's do, and does not begin with it.
    """

    single: tuple[Segment, ...]
    pair: tuple[Segment, ...]
    pad_id: int
    cls_last: bool = False

    def specials(self, *, pair: bool) -> int:
        """How many special tokens a row has."""
        return sum(len(segment.ids) for segment in (self.pair if pair else self.single))

    def assemble(self, first, second=None, *, max_length: int, way: str = "head") -> dict:
        """Cuts, surrounds and pads rows, as `padding="longest", truncation="longest_first"` does.

        Args:
            first: ragged int32 [B, (n)], the tokens of the first texts.
            second: ragged int32 [B, (m)], those of the second texts, or None.
            max_length: the most tokens of a row, special tokens included.
            way: what is kept of a longer text: "head", "tail" or "head+tail" (see `keep`).

        Returns:
            {"input_ids", "attention_mask", "token_type_ids"}: int32 [B, T], T the longest row (the special tokens alone for B = 0),
            and at least 1.

        Example:
            >>> bert = Template((Segment((101,), 0, None), Segment((), 0, 0), Segment((102,), 0, None)), (), pad_id=0)
            >>> rows = bert.assemble(tf.ragged.constant([[7, 8, 9], [7]], dtype=tf.int32), max_length=4)
            >>> rows["input_ids"].numpy().tolist()
            [[101, 7, 8, 102], [101, 7, 102, 0]]
            >>> rows["attention_mask"].numpy().tolist()
            [[1, 1, 1, 1], [1, 1, 1, 0]]
        """
        texts = [first] if second is None else [first, second]
        room = max_length - self.specials(pair=second is not None)
        lengths = [tf.cast(text.row_lengths(), tf.int32) for text in texts]
        lengths = [tf.minimum(lengths[0], room)] if second is None else longest_first(*lengths, room)

        ids, _ = self.lay(*(keep(text, length, way) for text, length in zip(texts, lengths, strict=True)))
        return ids

    def lay(self, first, second=None) -> tuple:
        """Surrounds and pads texts that fit, and tells where their tokens went.

        Args:
            first: ragged int32 [R, (n)].
            second: ragged int32 [R, (m)], or None.

        Returns:
            The dict of `assemble`, and a function (values, fill) -> [R, T] that spreads one value for each token of the last text, flat,
            over the places of these tokens; all others have `fill`.
        """
        texts = [first] if second is None else [first, second]
        segments = self.single if second is None else self.pair
        lengths = [tf.cast(text.row_lengths(), tf.int32) for text in texts]
        # One flat source of tokens: special tokens, then the texts. A row is a few stretches of it, one after the other.
        fixed = [(token, segment.type_id) for segment in segments for token in segment.ids]
        source = tf.concat([tf.constant([token for token, _ in fixed], tf.int32), *(text.values for text in texts)], 0)
        starts, counts, used, behind = [], [], 0, len(fixed)
        for segment in segments:
            if segment.text is None:
                starts.append(tf.zeros_like(lengths[0]) + used)
                counts.append(tf.zeros_like(lengths[0]) + len(segment.ids))
                used += len(segment.ids)
            else:
                starts.append(tf.cast(texts[segment.text].row_splits[:-1], tf.int32) + behind)
                counts.append(lengths[segment.text])
                behind += tf.size(texts[segment.text].values)
        starts, counts = tf.stack(starts, 1), tf.stack(counts, 1)  # int32 [R, S]
        places = tf.ragged.range(tf.reshape(starts, [-1]), tf.reshape(starts + counts, [-1])).values
        total = tf.reduce_sum(counts, 1)
        longest = tf.maximum(tf.reduce_max(total), max(1, len(fixed)))  # no model takes rows without a place

        def rows(values, fill):
            ragged = tf.RaggedTensor.from_row_lengths(tf.gather(values, places), total, validate=False)
            return ragged.to_tensor(fill, shape=tf.stack([-1, longest]))

        def spread(values, fill):
            others = tf.fill([tf.size(source) - tf.size(values)], tf.cast(fill, values.dtype))
            return rows(tf.concat([others, values], 0), fill)

        ids = rows(source, self.pad_id)
        types = tf.zeros_like(ids)
        if any(segment.type_id for segment in segments):
            of_texts = [s.type_id + tf.zeros_like(texts[s.text].values) for s in segments if s.text is not None]
            types = rows(tf.concat([tf.constant([kind for _, kind in fixed], tf.int32), *of_texts], 0), 0)
        mask = tf.sequence_mask(total, longest, tf.int32)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}, spread


def template_of(tokenizer) -> Template:
    """Reads a template off what a tokenizer puts around two probe texts.

    Args:
        tokenizer: what `load_tokenizer` returns.

    Raises:
        InputError: the tokens of a text are not one stretch of the row, with one type.
    """
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    single, pair = _segments(backend.encode("a")), _segments(backend.encode("a", "a"))
    cls_last = tokenizer.cls_token_id in single[-1].ids[-1:] and tokenizer.cls_token_id not in single[0].ids
    return Template(single, pair, tokenizer.pad_token_id or 0, cls_last)


def _segments(encoding) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for token, type_id, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
        last = segments[-1] if segments else None
        if last and (last.text, last.type_id) == (text, type_id):
            ids = () if text is not None else (*last.ids, token)
            segments[-1] = Segment(ids, type_id, text)
        else:
            segments.append(Segment(() if text is not None else (token,), type_id, text))
    texts = [segment.text for segment in segments if segment.text is not None]
    if texts != list(range(encoding.n_sequences)):
        raise InputError(
            "cannot be put in the graph exactly: the post-processor does not keep each text in one piece, in order"
        )
    return tuple(segments)

"""The answer of a question from the scores of the tokens of all its windows, as TensorFlow operations."""

from __future__ import annotations

import numpy as np

from tfbert._compat import tf
from tfbert.decoding.runs import changes, runs
from tfbert.decoding.substrings import substrings

# What a span scores that is none: below any real logits, far above the least float32.
_NEVER = -1e9
# The greatest difference that is told; JSON has no word for infinite.
_MOST = 1e6


def best_spans(
    start_logits,
    end_logits,
    allowed,
    start,
    end,
    cls,
    example,
    count,
    *,
    n_best: int,
    max_answer_length: int,
    no_answer: bool,
) -> dict:
    """The best span of each example over all its windows, as the published script of question answering picks it.

    In each window the `n_best` likeliest starts and ends make candidates: end not before start, at most `max_answer_length` tokens, both in
    the context. A candidate scores the sum of its two logits; the best of all windows is the answer, of equal ones the earliest in window.
    Its probability is a softmax over the n_best candidates of the example. "No answer" scores the sum of the logits of [CLS],
    and of the windows the lowest counts (Devlin et al. 2019, section 4.3; run_qa.py of Hugging Face Transformers).

    Args:
        start_logits: float32 [R, T].
        end_logits: float32 [R, T].
        allowed: bool [R, T], the tokens of the context.
        start: int32 [R, T], where each token begins in its context, in code points.
        end: int32 [R, T], where it ends (exclusive).
        cls: bool [R, T], where [CLS] is, which is no token of the context.
        example: int32 [R], ascending: the number of each window's example; every example has a window.
        count: int32 scalar, the number of examples B.
        n_best: candidates that are kept, of a window and of an example.
        max_answer_length: the most tokens of an answer.
        no_answer: whether "no answer" takes part in the softmax.

    Returns:
        start and end int32 [B] (0 where no candidate is), score float32 [B], the probability of the span; no_answer_score float32 [B], how
        much "no answer" scores above the span, at most 1e6; null_probability float32 [B], 0 without `no_answer`.
    """
    scores, begins, ends = _of_windows(
        start_logits, end_logits, allowed, start, end, n_best=n_best, max_answer_length=max_answer_length
    )
    # The candidates of an example's windows side by side, as many as the one with the most windows has.
    windows = tf.math.bincount(example, minlength=count, maxlength=count)
    scores, begins, ends = (_side_by_side(x, windows, fill) for x, fill in ((scores, _NEVER), (begins, 0), (ends, 0)))
    top, order = tf.math.top_k(scores, tf.minimum(n_best, tf.shape(scores)[1]))  # [B, k]
    found = top[:, 0] > _NEVER / 2
    begin, stop = (tf.where(found, tf.gather(x, order[:, :1], batch_dims=1)[:, 0], 0) for x in (begins, ends))
    null = tf.math.segment_min(_at(cls, start_logits) + _at(cls, end_logits), example)  # [B]
    share = _probabilities(top, null, n_best=n_best, no_answer=no_answer)
    return {
        "start": begin,
        "end": stop,
        "score": tf.where(found, share[:, 0], 0.0),
        "no_answer_score": tf.clip_by_value(null - tf.where(found, top[:, 0], -_MOST), -_MOST, _MOST),
        "null_probability": share[:, -1] if no_answer else tf.zeros_like(null),
    }


def likely_spans(
    start_logits, end_logits, allowed, word, start, end, cls, example, count, *, n_best: int, max_answer_length: int
) -> dict:
    """The likeliest spans of each window, widened to whole words, as the Hugging Face question answering pipeline finds them.

    In each window two softmaxes, over the starts and over the ends, share one between [CLS] and the tokens of the context. A
    span is as likely as its start times its end; the `n_best` likeliest are kept. Each reaches from the beginning of its first token's
    word to the end of its last token's, as far as the words are in the window. "No answer" is as likely as [CLS] is as start times as end,
    and of the windows the lowest counts. `sum_of_equals` makes answers of the spans.

    Args:
        start_logits, end_logits, allowed, start, end, cls, example, count: as in `best_spans`.
        word: int32 [R, T], the number of each token's word in its context.
        n_best: spans that are kept of a window.
        max_answer_length: the most tokens of an answer, before it is widened.

    Returns:
        starts and ends int32 [B, K], scores float32 [B, K]: the spans of the example's first window, the likeliest first, then those of its
        second; filled up with 0. null_score float32 [B].
    """
    width = tf.shape(start_logits)[1]
    rivals = allowed | cls
    first, last = (tf.nn.softmax(tf.where(rivals, x, -np.inf)) for x in (start_logits, end_logits))  # [R, T]
    null = tf.math.segment_min(_at(cls, first) * _at(cls, last), example)  # [B]
    first, last = (tf.where(allowed, x, 0.0) for x in (first, last))

    most = tf.minimum(max_answer_length, width)
    later = tf.range(width)[:, tf.newaxis] + tf.range(most)  # [T, M]: the ends that each start may have
    pair = first[:, :, tf.newaxis] * tf.gather(tf.pad(last, [[0, 0], [0, most]]), later, axis=1)  # [R, T, M]
    flat = tf.reshape(pair, tf.stack([tf.shape(pair)[0], width * most]))
    scores, place = tf.math.top_k(flat, tf.minimum(n_best, width * most))  # [R, k]
    # Behind the last token there is none: such a span scores 0, and any place will do.
    first_at, last_at = place // most, tf.minimum(place // most + place % most, width - 1)
    start, end = _whole_words(tf.where(allowed, word, -1), start, end)
    begins, ends = tf.gather(start, first_at, batch_dims=1), tf.gather(end, last_at, batch_dims=1)
    windows = tf.math.bincount(example, minlength=count, maxlength=count)
    scores, begins, ends = (_side_by_side(x, windows, 0) for x in (scores, begins, ends))
    return {"starts": begins, "ends": ends, "scores": scores, "null_score": null}


def sum_of_equals(text, starts, ends, scores) -> tuple:
    """The best answer of each text where spans of equal words, in upper or lower case, add up their scores.

    Args:
        text: string [B].
        starts: int32 [B, K], places in code points.
        ends: int32 [B, K], exclusive.
        scores: float32 [B, K], at least 0.

    Returns:
        start and end int32 [B], those of the first of the best answer's spans, and score float32 [B], the sum; of equally good answers the
        one that is met first, and 0 for all three where no span scores.

    Example:
        >>> spans = tf.constant([[0, 5, 10]]), tf.constant([[4, 9, 14]]), tf.constant([[0.25, 0.375, 0.25]])
        >>> [found.numpy().tolist() for found in sum_of_equals(tf.constant(["Rome Oslo rome"]), *spans)]
        [[0], [4], [0.5]]
    """
    shape = tf.shape(starts)
    words = _lower(substrings(text, starts, ends))  # [B, K]
    example = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], shape)
    keys = tf.strings.join([tf.strings.as_string(example), words], " ")
    answers, answer = tf.unique(tf.reshape(keys, [-1]))
    total = tf.math.unsorted_segment_sum(tf.reshape(scores, [-1]), answer, tf.size(answers))
    score, first = tf.math.top_k(tf.reshape(tf.gather(total, answer), shape), 1)  # of equal ones the first
    start, end = (tf.where(score > 0, tf.gather(x, first, batch_dims=1), 0)[:, 0] for x in (starts, ends))
    return start, end, score[:, 0]


def _lower(text):
    """Texts in lower case, for comparing them, as Python's `str.lower` has it."""
    # The operation stops at a NUL. Its rules beyond ASCII are those of the machine's language, where a Turkish "I" is no "i".
    text = tf.strings.regex_replace(text, r"\x00", "\uffff")
    return tf.strings.lower(tf.strings.lower(text), "utf-8")


def _at(place, values):
    """Of each row's values [R, T] the one where `place`, bool [R, T], is true: [R]."""
    return tf.reduce_sum(tf.where(place, values, 0.0), 1)


def _whole_words(word, start, end) -> tuple:
    """Where the word of each token begins and ends, int32 [R, T], as far as it is in the window; `word` int32 [R, T] numbers them."""
    shape = tf.shape(word)
    window = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], shape)
    window, word, start, end = (tf.reshape(x, [-1]) for x in (window, word, start, end))
    first, last, run = runs(changes(window) | changes(word))
    found = (tf.gather(start, tf.gather(first, run)), tf.gather(end, tf.gather(last, run)))
    return tuple(tf.reshape(x, shape) for x in found)


def _of_windows(start_logits, end_logits, allowed, start, end, *, n_best: int, max_answer_length: int) -> tuple:
    """The best candidates of each window: scores float32, begins and ends int32, all [R, k]; what is none scores _NEVER."""
    kept = tf.minimum(n_best, tf.shape(start_logits)[1])
    first, first_at = tf.math.top_k(start_logits, kept)  # [R, n]
    last, last_at = tf.math.top_k(end_logits, kept)
    pair = first[:, :, tf.newaxis] + last[:, tf.newaxis, :]  # [R, n, n]
    long = last_at[:, tf.newaxis, :] - first_at[:, :, tf.newaxis]
    fits = (long >= 0) & (long < max_answer_length)
    fits &= tf.gather(allowed, first_at, batch_dims=1)[:, :, tf.newaxis]
    fits &= tf.gather(allowed, last_at, batch_dims=1)[:, tf.newaxis, :]
    flat = tf.reshape(tf.where(fits, pair, _NEVER), tf.stack([-1, kept * kept]))  # [R, n * n]
    scores, place = tf.math.top_k(flat, tf.minimum(n_best, kept * kept))  # [R, k]
    begins = tf.gather(tf.gather(start, first_at, batch_dims=1), place // kept, batch_dims=1)
    ends = tf.gather(tf.gather(end, last_at, batch_dims=1), place % kept, batch_dims=1)
    return scores, begins, ends


def _probabilities(top, null, *, n_best: int, no_answer: bool):
    """The softmax over the best candidates [B, k], and "no answer" [B] behind them where it takes part."""
    real = tf.where(top > _NEVER / 2, top, -np.inf)
    if no_answer:
        # The list holds n_best of all, "no answer" among them; where that is not one of the best, it is put behind them.
        pushed = (tf.shape(top)[1] >= n_best) & (null > real[:, -1])
        real = tf.concat([real[:, :-1], tf.where(pushed, -np.inf, real[:, -1])[:, tf.newaxis], null[:, tf.newaxis]], 1)
    highest = tf.reduce_max(real, 1, keepdims=True)
    share = tf.exp(real - tf.where(tf.math.is_finite(highest), highest, 0.0))
    return tf.math.divide_no_nan(share, tf.reduce_sum(share, 1, keepdims=True))


def _side_by_side(values, windows, fill):
    """Values [R, k] of windows as [B, most windows * k]; `windows` int32 [B] are the rows of each example."""
    rows = tf.RaggedTensor.from_row_lengths(values, windows, validate=False)
    dense = rows.to_tensor(tf.cast(fill, values.dtype), shape=[None, None, None])  # [B, most, k]
    width = tf.shape(values)[1] * tf.maximum(1, tf.shape(dense)[1])
    return tf.reshape(
        tf.pad(dense, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(dense)[1])], [0, 0]]), tf.stack([-1, width])
    )


def target_places(start: np.ndarray, end: np.ndarray, answer: tuple[int, int]) -> tuple[int, int] | None:
    """The first and last of the tokens of a window that hold an answer, or None where it is not wholly in the window.

    Tokens at [0, 3), [4, 8), [8, 9) and the answer [5, 9): the answer begins in token 1 and ends in token 2.

    Args:
        start: int [n], where the window's tokens of the context begin, ascending.
        end: int [n], where they end.
        answer: where the answer begins and ends in the context.

    Example:
        >>> target_places(np.array([0, 4, 8]), np.array([3, 8, 9]), (5, 9))
        (1, 2)
        >>> target_places(np.array([0, 4, 8]), np.array([3, 8, 9]), (8, 12)) is None
        True
    """
    if not len(start) or start[0] > answer[0] or end[-1] < answer[1]:
        return None
    first = int(np.searchsorted(start, answer[0], side="right")) - 1
    last = int(np.searchsorted(end, answer[1], side="left"))
    return min(first, last), max(first, last)  # the pieces of one character share its place

"""The scores of the next token: what settings make of them, and one token drawn by them."""

from __future__ import annotations

from tfbert._compat import tf
from tfbert.decoding.generation.settings import Generation
from tfbert.decoding.generation.steps import NOTHING, is_end


def adjust(scores, written, place, count, settings: Generation, ends: tuple[int, ...]):
    """Lowers the scores of tokens that are not to come again, or not yet, in the order of Transformers' `generate`.

    Args:
        scores: float32 [B, V], logits or log-probabilities.
        written: int32 [B, P + N], prompts and what was written so far; NOTHING elsewhere.
        place: int32 scalar, where in `written` the next token will stand.
        count: int32 scalar, how many tokens were written so far.
        settings: of which the repetition penalty, no_repeat_ngram_size and min_new_tokens count here.
        ends: the ids of the tokens that end a text.

    Returns:
        float32 [B, V].

    Example:
        >>> scores = tf.constant([[2.0, -2.0, 3.0]])
        >>> adjust(scores, tf.constant([[0, 1, NOTHING]]), 2, 1, Generation(repetition_penalty=2.0), ()).numpy().tolist()
        [[1.0, -4.0, 3.0]]
    """
    if settings.repetition_penalty != 1:
        penalty = settings.repetition_penalty
        seen = _among(written, written >= 0, scores)
        scores = tf.where(seen, tf.where(scores < 0, scores * penalty, scores / penalty), scores)
    if settings.no_repeat_ngram_size:
        scores = tf.where(_repeating(written, place, settings.no_repeat_ngram_size, scores), -float("inf"), scores)
    if settings.min_new_tokens and ends:
        early = (count < settings.min_new_tokens) & is_end(tf.range(tf.shape(scores)[1]), ends)
        scores = tf.where(early, -float("inf"), scores)
    return scores


def _among(ids, chosen, scores):
    """Which tokens of the vocabulary are among the chosen ids of a row: int32 [B, n], bool [B, n] -> bool [B, V]."""
    places = tf.where(chosen)
    found = tf.stack([places[:, 0], tf.cast(tf.gather_nd(ids, places), tf.int64)], 1)
    return tf.scatter_nd(found, tf.ones_like(found[:, 0], tf.int32), tf.shape(scores, tf.int64)) > 0


def _repeating(written, place, size: int, scores):
    """Which tokens would complete a stretch of `size` tokens that was there before: bool [B, V].

    size 3, written [5, 6, 7, 5, 6, .]: after the last two, 5 and 6, came 7, so that 7 would repeat.
    """
    written = tf.pad(written, [[0, 0], [size, 0]], constant_values=NOTHING)
    last = written[:, place + 1 : place + size]  # the size - 1 tokens before the next, which will stand at place + size
    windows = tf.shape(written)[1] - size + 1
    same = tf.ones_like(written[:, :windows], tf.bool)
    for j in range(size - 1):
        same &= written[:, j : windows + j] == last[:, j : j + 1]
    following = written[:, size - 1 :]
    return _among(following, same & (following >= 0) & tf.reduce_all(last >= 0, 1, keepdims=True), scores)


def distribution(scores, settings: Generation) -> tuple:
    """The probabilities by which a token is drawn: divided by the temperature, then top-k, then top-p.

    Args:
        scores: logits, float32 [B, V].
        settings: of which temperature, top_k and top_p count here.

    Returns:
        Probabilities, float32 [B, C], not yet of sum 1, and the ids that they are of, int32 [B, C]; None for 0, 1, ..., V - 1.

    Example:
        >>> chances, ids = distribution(tf.math.log([[0.1, 0.6, 0.3]]), Generation(do_sample=True, top_p=0.8))
        >>> chances.numpy().tolist(), ids.numpy().tolist()
        ([[0.6, 0.3, 0.0]], [[1, 2, 0]])
    """
    scores = scores / settings.temperature
    if not settings.top_k and settings.top_p == 1:
        return tf.nn.softmax(scores), None
    size = tf.shape(scores)[1]
    best = tf.math.top_k(scores, tf.minimum(settings.top_k, size) if settings.top_k else size)
    chances = tf.nn.softmax(best.values)
    before = tf.cumsum(chances, axis=1, exclusive=True)
    return tf.where(before < settings.top_p, chances, 0.0), best.indices


def draw(scores, chance, settings: Generation):
    """Draws a token for each row by one number that is even from 0 to 1: float32 [B, V], float32 [B] -> int32 [B].

    Example:
        >>> scores = tf.math.log([[0.1, 0.6, 0.3]] * 3)
        >>> draw(scores, tf.constant([0.05, 0.5, 0.9]), Generation(do_sample=True)).numpy().tolist()
        [0, 1, 2]
    """
    chances, ids = distribution(scores, settings)
    # Of many small numbers the sum would be off by far more than a step of `chance` in float32.
    upto = tf.cumsum(tf.cast(chances, tf.float64), axis=1)
    drawn = tf.cast(chance, tf.float64)[:, tf.newaxis] * upto[:, -1:]
    place = tf.reduce_sum(tf.cast(upto <= drawn, tf.int32), 1)
    return place if ids is None else tf.gather(ids, place, batch_dims=1)


def even(ids, mask, settings: Generation):
    """Numbers even from 0 to 1, for each row and token to be written, from the seed and the row's own ids alone: float32 [B, N].

    Args:
        ids: int32 [B, T], padded on whichever side.
        mask: int32 [B, T], 0 in padding.
        settings: of which seed and max_new_tokens count here.
    """
    words = tf.where(mask > 0, tf.strings.join([tf.strings.as_string(ids), " "]), "")
    keys = tf.strings.to_hash_bucket_fast(tf.strings.reduce_join(words, 1), 2**62)

    def numbers(key):
        seed = tf.stack([tf.constant(settings.seed, tf.int64), key])
        # Said, for the kind that is taken by itself is another one on other devices.
        return tf.random.stateless_uniform([settings.max_new_tokens], seed, alg="philox")

    return tf.map_fn(numbers, keys, fn_output_signature=tf.TensorSpec([settings.max_new_tokens], tf.float32))

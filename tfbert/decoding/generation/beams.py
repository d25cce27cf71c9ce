"""Beam search: several texts of a row followed side by side, of which the likeliest is the answer."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfbert._compat import tf
from tfbert.decoding.generation.scores import adjust
from tfbert.decoding.generation.settings import Generation
from tfbert.decoding.generation.steps import NOTHING, Steps, is_end, loose

WORST = -1e9  # the score of what is not there


class Texts(NamedTuple):
    """The K texts of each of B rows that go on, and the K best that have ended.

    Args:
        running: int32 [B, K, P + N], prompts and new tokens.
        scores: float32 [B, K], the sums of their tokens' log-probabilities.
        ended: int32 [B, K, P + N].
        ended_scores: float32 [B, K], such sums divided by a power of the length.
        has_ended: bool [B, K], whether there is such a text at all.
        open: bool [B], whether a running text may yet become one of the best.
    """

    running: Any
    scores: Any
    ended: Any
    ended_scores: Any
    has_ended: Any
    open: Any


def search(steps: Steps, logits, state, prompt, settings: Generation, ends: tuple[int, ...]):
    """Follows K texts of each row; of those that ended, the one with the highest score is the answer, as in TF Transformers' `generate`.

    A row stops when none of its running texts is better than the worst of K that have ended, at its present length (Transformers'
    early_stopping=False), whatever the other rows do. Where no text has ended, the likeliest running one is the answer.

    Args:
        steps: the model.
        logits: of the first new token, [B, V].
        state: the model's, of B rows.
        prompt: int32 [B, P], what the new tokens follow.
        settings: how.
        ends: the ids of the tokens that end a text.

    Returns:
        int32 [B, max_new_tokens], NOTHING from the end on.
    """
    most, width = settings.max_new_tokens, tf.shape(prompt)[1]
    copies = tf.repeat(tf.range(tf.shape(prompt)[0]), settings.num_beams)

    def write(count, token, texts, state):
        logits, state = steps.step(token, state)
        token, rows, texts = _continue(count, logits, texts, width, settings, ends)
        return count + 1, token, texts, steps.take(state, rows)

    texts = _begin(prompt, settings)
    token, rows, texts = _continue(0, tf.gather(logits, copies), texts, width, settings, ends)
    values = (tf.constant(1), token, texts, steps.take(state, tf.gather(copies, rows)))
    _, _, texts, _ = tf.while_loop(
        lambda count, token, texts, state: (count < most) & tf.reduce_any(texts.open),
        write,
        values,
        shape_invariants=tf.nest.map_structure(loose, values),
        parallel_iterations=1,
    )
    some = tf.reduce_any(texts.has_ended, 1)[:, tf.newaxis]
    answer = tf.where(some, texts.ended[:, 0], texts.running[:, 0])[:, width:]
    return tf.ensure_shape(tf.where(is_end(answer, ends), NOTHING, answer), [None, most])


def _begin(prompt, settings: Generation) -> Texts:
    rows, beams = tf.shape(prompt)[0], settings.num_beams
    written = tf.pad(prompt, [[0, 0], [0, settings.max_new_tokens]], constant_values=NOTHING)
    written = tf.tile(written[:, tf.newaxis], [1, beams, 1])
    # At first all texts of a row are the same: one of them counts.
    scores = tf.tile([[0.0, *[WORST] * (beams - 1)]], [rows, 1])
    none = tf.zeros([rows, beams], tf.bool)
    return Texts(
        written,
        scores,
        tf.fill(tf.shape(written), NOTHING),
        tf.fill([rows, beams], WORST),
        none,
        tf.ones([rows], tf.bool),
    )


def _continue(count, logits, texts: Texts, width, settings: Generation, ends: tuple[int, ...]) -> tuple:
    """Continues each text by its next token, after `count` new ones.

    Returns:
        The tokens, int32 [B * K]; of which text each continues, the numbers of rows of the model's state, int32 [B * K]; and the texts.
    """
    rows, beams, columns = tf.shape(texts.scores)[0], settings.num_beams, tf.shape(texts.running)[2]
    flat = tf.reshape(texts.running, [rows * beams, columns])
    chances = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    chances = adjust(chances, flat, width + count, count, settings, ends)
    size = tf.shape(chances)[1]
    sums = tf.reshape(chances, [rows, beams, size]) + texts.scores[:, :, tf.newaxis]
    # As many as can all end and leave as many to go on with.
    best = tf.math.top_k(tf.reshape(sums, [rows, beams * size]), beams * (1 + max(1, len(ends))))
    origin, token = best.indices // size, best.indices % size
    longer = tf.where(
        tf.range(columns) == width + count,
        token[:, :, tf.newaxis],
        tf.gather(texts.running, origin, batch_dims=1),
    )
    last = is_end(token, ends)
    running = tf.math.top_k(tf.where(last, best.values + WORST, best.values), beams)
    kept = running.indices
    length = tf.cast(count + 1, tf.float32) ** settings.length_penalty
    ended = _best_ended(texts, longer, best.values / length, last & (tf.range(tf.shape(token)[1]) < beams))
    worst = tf.where(ended.has_ended, tf.reduce_min(ended.ended_scores, 1, keepdims=True), WORST)
    better = tf.reduce_any(running.values[:, :1] / length > worst, 1)
    source = tf.gather(origin, kept, batch_dims=1) + tf.range(rows)[:, tf.newaxis] * beams
    texts = ended._replace(
        running=tf.gather(longer, kept, batch_dims=1), scores=running.values, open=texts.open & better
    )
    return tf.reshape(tf.gather(token, kept, batch_dims=1), [-1]), tf.reshape(source, [-1]), texts


def _best_ended(texts: Texts, longer, scores, last) -> Texts:
    """The best of the texts that had ended and of those that end now, [B, C], in the rows that are open."""
    last &= texts.open[:, tf.newaxis]
    scores = tf.concat([texts.ended_scores, tf.where(last, scores, scores + WORST)], 1)
    best = tf.math.top_k(scores, tf.shape(texts.scores)[1])
    ended, has_ended = (
        tf.gather(tf.concat(pair, 1), best.indices, batch_dims=1)
        for pair in ((texts.ended, longer), (texts.has_ended, last))
    )
    return texts._replace(ended=ended, ended_scores=best.values, has_ended=has_ended)

"""The loop that writes one token after the other, the likeliest or a drawn one."""

from __future__ import annotations

from tfbert._compat import tf
from tfbert.decoding.generation import beams
from tfbert.decoding.generation.scores import adjust, draw, even
from tfbert.decoding.generation.settings import Generation
from tfbert.decoding.generation.steps import NOTHING, Steps, is_end, loose


def generate(steps: Steps, ids, mask, settings: Generation, ends: tuple[int, ...]):
    """Writes on from prompts; no row's text depends on the other rows or on padding.

    Args:
        steps: the model.
        ids: int32 [B, T], the prompts (or what is to be translated), padded on the right; each has a token.
        mask: int32 [B, T], 0 in padding.
        settings: how.
        ends: the ids of the tokens that end a text.

    Returns:
        int32 [B, max_new_tokens], the new tokens without the one that ended the text, NOTHING after them.

    Example:
        >>> class Next:  # after i comes i + 1
        ...     def begin(self, ids, mask):
        ...         return tf.one_hot(ids[:, -1] + 1, 9), (), ids
        ...     def step(self, token, state):
        ...         return tf.one_hot(token + 1, 9), ()
        ...     def take(self, state, rows):
        ...         return ()
        >>> generate(Next(), tf.constant([[1], [5]]), tf.constant([[1], [1]]), Generation(max_new_tokens=4), ends=(7,)).numpy().tolist()
        [[2, 3, 4, 5], [6, -1, -1, -1]]
    """
    logits, state, prompt = steps.begin(ids, mask)
    if settings.num_beams > 1:
        return beams.search(steps, logits, state, prompt, settings, ends)
    width = tf.shape(prompt)[1]
    chances = even(ids, mask, settings) if settings.do_sample else None
    columns = tf.range(width + settings.max_new_tokens)

    def choose(count, logits, written, done):
        """The token after `count` new ones, NOTHING where a text has ended: it, all that is written, and which texts have ended."""
        scores = adjust(tf.cast(logits, tf.float32), written, width + count, count, settings, ends)
        token = tf.argmax(scores, 1, tf.int32) if chances is None else draw(scores, chances[:, count], settings)
        done |= is_end(token, ends)
        token = tf.where(done, NOTHING, token)
        return token, tf.where(columns == width + count, token[:, tf.newaxis], written), done

    def write(count, token, written, done, state):
        logits, state = steps.step(tf.maximum(token, 0), state)
        return count + 1, *choose(count, logits, written, done), state

    written = tf.pad(prompt, [[0, 0], [0, settings.max_new_tokens]], constant_values=NOTHING)
    first = choose(0, logits, written, tf.zeros_like(prompt[:, 0], tf.bool))
    values = (tf.constant(1), *first, state)
    _, _, written, _, _ = tf.while_loop(
        lambda count, token, written, done, state: (count < settings.max_new_tokens) & ~tf.reduce_all(done),
        write,
        values,
        shape_invariants=tf.nest.map_structure(loose, values),
        parallel_iterations=1,
    )
    return tf.ensure_shape(written[:, width:], [None, settings.max_new_tokens])

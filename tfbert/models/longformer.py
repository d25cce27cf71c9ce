"""Longformer's attention (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150) as plain TensorFlow operations.

A token sees its neighbours, half a window to each side; the few tokens with global attention see all and are seen by all. TF Transformers'
own layers have no gradient in graph mode with TensorFlow 2.21 as soon as a token is global (dropout on probabilities whose last dimension
is not known), so theirs hold the weights, and what is computed with them stands here. Memory grows with T, not with T squared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tfbert._compat import tf, transformers
from tfbert.errors import InputError

FAR = -1e9  # added to the score of a token that is not seen: its probability is exactly 0


class Tokens(NamedTuple):
    """Which tokens of a batch there are, and which of them are global: G in the row that has most, at least 1.

    Args:
        there: float32 [B, T], 0 for padding.
        near: float32 [B, T], 1 for those that are there and not global.
        pick: float32 [B, G, T], 1 at the place of a row's global token 0, 1, ...; all 0 past its last. None where none can be global.
    """

    there: Any
    near: Any
    pick: Any


def replace_attention(model, chosen: str | None) -> None:
    """Puts this module's encoder in place of that of a TF Transformers Longformer, and lets the model choose its global tokens by itself.

    The weights and their names stay. A `global_attention_mask` that is passed to the model goes before its own choice. Where no
    token is global, the weights of the global attention are set to be not trained: nothing depends on them.

    Args:
        model: a built TFLongformerModel or TFLongformerFor...; changed in place.
        chosen: which tokens have global attention, see `global_mask`; None for none of them.
    """
    main, theirs, separator = getattr(model, model.base_model_prefix), model.call, model.config.sep_token_id

    def call(inputs=None, training=False, **named):
        named = _named(inputs, named)
        if named.get("global_attention_mask") is None:
            named["global_attention_mask"] = global_mask(tf.convert_to_tensor(named["input_ids"]), chosen, separator)
        return theirs(**named, training=training)

    def encoder(inputs=None, training=False, **named):
        return _encode(main, **_named(inputs, named), training=training)

    main.call = encoder
    if chosen is not None:
        model.call = call
        return
    for layer in main.encoder.layer:
        own = layer.attention.self_attention
        own.query_global.trainable = own.key_global.trainable = own.value_global.trainable = False


def _named(inputs, named: dict[str, Any]) -> dict[str, Any]:
    return {**(inputs if isinstance(inputs, Mapping) else {"input_ids": inputs}), **named}


def global_mask(ids, chosen: str, separator: int):
    """Chooses the tokens with global attention, as PyTorch Transformers' classes do.

    Args:
        ids: int [..., T].
        chosen: "first" (the first token), "before separator" (a question, without the separator itself; nothing where there is none) or
            "after separator" (the second text with its separator; RoBERTa's second separator between two texts is passed over).
        separator: the separator's id.

    Returns:
        int32 [..., T], 1 for global attention; [..., 1] for "first".

    Example:
        >>> ids = tf.constant([[0, 7, 8, 2, 2, 9, 2], [0, 7, 2, 9, 9, 2, 1]])
        >>> global_mask(ids, "before separator", 2).numpy().tolist()
        [[1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]
        >>> global_mask(ids, "after separator", 2).numpy().tolist()
        [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    """
    if chosen == "first":
        return tf.ones_like(ids[..., :1], tf.int32)
    found = ids == separator
    count = tf.cumsum(tf.cast(found, tf.int32), -1)
    if chosen == "before separator":
        return tf.cast((count == 0) & tf.reduce_any(found, -1, keepdims=True), tf.int32)
    twin = found & tf.roll(found, 1, -1) & (count == 2)
    return tf.cast((count - tf.cast(found, tf.int32) > 0) & ~twin, tf.int32)


def _encode(main, input_ids, attention_mask=None, global_attention_mask=None, training=False, **others):
    """Computes what TFLongformerMainLayer does, with its layers.

    Args:
        main: the TFLongformerMainLayer.
        input_ids: int [B, T].
        attention_mask: int [B, T], 0 for padding (default: none is).
        global_attention_mask: int [B, S], 1 for global attention, of the first S <= T tokens (default: none is).
        training: whether dropout is on.
        others: must be None or False, but for return_dict, which has no effect: what is returned is both, a dict and a tuple.

    Returns:
        A TFLongformerBaseModelOutputWithPooling: last_hidden_state [B, T, D] and, where there is a pooler, pooler_output [B, D].
    """
    asked = [name for name, value in others.items() if not (name == "return_dict" or value is None or value is False)]
    if asked:
        raise InputError(f"tfbert's Longformer takes no {', '.join(asked)}; leave it out")
    ids = tf.cast(input_ids, tf.int32)
    there = tf.cast(tf.ones_like(ids) if attention_mask is None else attention_mask, tf.bool)
    tokens = _tokens(there, global_attention_mask)
    # Positions count the tokens that are no padding, from pad_token_id + 1 on; TF Transformers takes pad_token_id for 1.
    real = tf.cast(ids != main.config.pad_token_id, tf.int32)
    hidden = main.embeddings(
        input_ids=ids,
        position_ids=tf.cumsum(real, 1) * real + main.config.pad_token_id,
        training=training,
    )
    far = {window: _unseen(tokens, window // 2) for window in set(main.attention_window)}
    for layer, window in zip(main.encoder.layer, main.attention_window):
        own = layer.attention.self_attention
        seen = _local(own, hidden, tokens, far[window], window // 2, training)
        seen *= tf.cast(tokens.near, seen.dtype)[:, :, tf.newaxis]
        if tokens.pick is not None:
            seen += _global(own, hidden, tokens, training)
        seen = layer.attention.dense_output(seen, hidden, training=training)
        hidden = layer.longformer_output(layer.intermediate(seen), seen, training=training)
    outputs = transformers.models.longformer.modeling_tf_longformer.TFLongformerBaseModelOutputWithPooling
    return outputs(last_hidden_state=hidden, pooler_output=main.pooler(hidden) if main.pooler is not None else None)


def _tokens(there, mask) -> Tokens:
    """Finds the global tokens: `there` bool [B, T], `mask` int [B, S] or None; see `Tokens`.

    Picked by products with 0 and 1, not by gathering: a GPU adds up a gather's gradient in any order, so no two runs would be equal.
    """
    floats = tf.cast(there, tf.float32)
    if mask is None:
        return Tokens(floats, floats, None)
    chosen = (tf.pad(tf.cast(mask, tf.int32), [[0, 0], [0, _size(there, 1) - _size(mask, 1)]]) > 0) & there
    number = tf.cast(chosen, tf.int32)
    most = 1 if mask.shape[1] == 1 else tf.maximum(1, tf.reduce_max(tf.reduce_sum(number, 1)))
    rank = tf.where(chosen, tf.cumsum(number, 1) - 1, -1)
    columns = tf.range(_size(there, 1))[:most, tf.newaxis]  # not tf.range(most), whose length XLA cannot bound
    pick = tf.cast(rank[:, tf.newaxis] == columns, tf.float32)
    return Tokens(floats, tf.cast(there & ~chosen, tf.float32), pick)


def _unseen(tokens: Tokens, half: int):
    """What is added to the scores of `_local`: float32 [B, 1, N, half, 3 * half + G], 0 for what a query sees and FAR for the rest.

    With half = 2, what a chunk's two queries (x) see of its and its neighbours' columns, all near: "o o x o o ." and ". o o x o o".
    """
    keys = _neighbours(tokens.near[:, tf.newaxis, :, tf.newaxis], half)  # [B, 1, N, 3 * half, 1]
    query, column = tf.range(half)[:, tf.newaxis], tf.range(3 * half)
    band = (column >= query) & (column <= query + 2 * half)
    seen = tf.linalg.matrix_transpose(keys) * tf.cast(band, tf.float32)  # [B, 1, N, half, 3 * half]
    if tokens.pick is not None:
        filled = tf.reduce_sum(tokens.pick, 2)[:, tf.newaxis, tf.newaxis, tf.newaxis]  # [B, 1, 1, 1, G]
        seen = tf.concat([seen, tf.tile(filled, [1, 1, _size(seen, 2), half, 1])], -1)
    return (1 - seen) * FAR


def _local(own, hidden, tokens: Tokens, far, half: int, training):
    """What every token gathers from its window and from the global tokens: [B, T, D] -> [B, T, D].

    T is cut into N chunks of half a window. A chunk's queries meet the keys of three chunks and of the global tokens in one product.
    """
    query, key, value = own.query(hidden), own.key(hidden), own.value(hidden)
    chunks = [_neighbours(_heads(x, own), half) for x in (key, value)]  # [B, H, N, 3 * half, D / H]
    number = _size(chunks[0], 2)
    if tokens.pick is not None:
        for i, x in enumerate((key, value)):
            picked = _heads(tf.matmul(tf.cast(tokens.pick, x.dtype), x), own)[:, :, tf.newaxis]
            chunks[i] = tf.concat([chunks[i], tf.tile(picked, [1, 1, number, 1, 1])], 3)
    query = _chunks(_heads(query, own), half)
    gathered = _gather(query, *chunks, far, own, own.dropout, training)  # [B, H, N, half, D / H]
    return _flat(tf.reshape(gathered, [-1, own.num_heads, number * half, own.head_dim]), own)[:, : _size(hidden, 1)]


def _global(own, hidden, tokens: Tokens, training):
    """What the global tokens gather from all tokens, by their own projections: [B, T, D] -> [B, T, D], 0 at all other places.

    Where one token of a row is global, its query is projected back instead of all tokens to keys, and its mixture of tokens instead of
    all tokens to values: q (h K + k) = (q K') h + q k, and the sum of p (h V + v) = (the sum of p h) V + (the sum of p) v.
    """
    pick = tf.cast(tokens.pick, hidden.dtype)
    query = _heads(own.query_global(tf.matmul(pick, hidden)), own)  # [B, H, G, D / H]
    far = (1 - tokens.there)[:, tf.newaxis, tf.newaxis] * FAR
    if pick.shape[1] == 1:
        (key, key_bias), (value, value_bias) = (_weights(dense, own) for dense in (own.key_global, own.value_global))
        query *= own.head_dim**-0.5
        scores = tf.matmul(tf.matmul(query, key, transpose_b=True), hidden[:, tf.newaxis], transpose_b=True)
        shares = _shares(scores + tf.matmul(query, key_bias, transpose_b=True), far, own.global_dropout, training)
        mixture = tf.matmul(tf.matmul(shares, hidden[:, tf.newaxis]), value)  # [B, H, 1, D] and [H, D, D / H]
        gathered = mixture + tf.reduce_sum(shares, -1, keepdims=True) * value_bias
    else:
        key, value = _heads(own.key_global(hidden), own), _heads(own.value_global(hidden), own)
        gathered = _gather(query, key, value, far, own, own.global_dropout, training)
    return tf.matmul(pick, _flat(gathered, own), transpose_a=True)


def _weights(dense, own):
    """A projection's matrix and bias by head, [H, D, D / H] and [H, 1, D / H], in the precision of the computation."""
    kernel = tf.reshape(dense.kernel, [own.embed_dim, own.num_heads, own.head_dim])
    return tf.transpose(kernel, [1, 0, 2]), tf.reshape(dense.bias, [own.num_heads, 1, own.head_dim])


def _gather(query, key, value, far, own, dropout, training):
    """Attention: query [..., Q, d], key and value [..., K, d], far [..., Q or 1, K] -> [..., Q, d]."""
    scores = tf.matmul(query * own.head_dim**-0.5, key, transpose_b=True)
    return tf.matmul(_shares(scores, far, dropout, training), value)


def _shares(scores, far, dropout, training):
    """The softmax, in float32, with dropout: [..., Q, K] -> [..., Q, K]."""
    return dropout(tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32) + far), scores.dtype), training=training)


def _heads(x, own):
    """[B, T, D] -> [B, H, T, D / H]."""
    return tf.transpose(tf.reshape(x, [-1, _size(x, 1), own.num_heads, own.head_dim]), [0, 2, 1, 3])


def _flat(x, own):
    """[B, H, T, D / H] -> [B, T, D]."""
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, _size(x, 2), own.embed_dim])


def _chunks(x, half: int, around: int = 0):
    """Cuts [B, H, T, d] into chunks, [B, H, N, half, d], the last one filled up with 0; with `around` chunks of 0 before and after."""
    length, ends = _size(x, 2), around * half
    filling = -length % half
    x = tf.pad(x, [[0, 0], [0, 0], [ends, filling + ends], [0, 0]])
    return tf.reshape(x, [-1, x.shape[1], (length + filling) // half + 2 * around, half, x.shape[3]])


def _neighbours(x, half: int):
    """Sets each chunk of [B, H, T, d] between the previous and the next one: [B, H, N, 3 * half, d]."""
    chunks = _chunks(x, half, around=1)
    return tf.concat([chunks[:, :, :-2], chunks[:, :, 1:-1], chunks[:, :, 2:]], 3)


def _size(x, axis: int):
    """The size of a dimension: a number where it is known, else a tensor."""
    return tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]

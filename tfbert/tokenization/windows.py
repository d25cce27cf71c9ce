"""Texts that are longer than a row, cut into windows that overlap, as TensorFlow operations."""

from __future__ import annotations

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.tokenization.rows import Rows
from tfbert.tokenization.template import Template


def windows(template: Template, sliding, fixed=None, *, max_length: int, stride: int = 0) -> Rows:
    """Cuts texts into as many rows as they need, each beside the whole of the text that does not slide.

    Window k of a text begins at piece k * (room - stride), room being what the special tokens and the fixed text leave of max_length; the
    last one is the first that reaches the text's end. These are the rows of the Hugging Face tokenizers for `truncation="only_first"`
    (or "only_second" beside a fixed text), `stride=stride, return_overflowing_tokens=True`. A text without pieces is one row.

    With a room of 4 and a stride of 2, pieces 0 to 6 become the windows 0 1 2 3, 2 3 4 5, 4 5 6, of which each owns the pieces that stand
    farthest from its ends: 0 1 2, 3 4, 5 6.

    Args:
        template: the tokenizer's.
        sliding: `Pieces` of the B texts to be cut.
        fixed: ragged int32 [B, (m)], the first texts of the rows, cut already so that room is left; None: rows of one text.
        max_length: the most tokens of a row, special tokens included.
        stride: pieces that a window shares with the one before; beside a fixed text that leaves less room, one less than the room.

    Raises:
        InputError: max_length leaves no room, or none beside the stride.
    """
    most = max_length - template.specials(pair=fixed is not None)
    if not 0 <= stride < most:
        raise InputError(
            f"stride is {stride}; it must be at least 0 and less than the {most} tokens that max_length {max_length} leaves for text"
        )
    length = tf.cast(sliding.ids.row_lengths(), tf.int32)  # [B]
    room = tf.fill(tf.shape(length), most)
    if fixed is not None:
        room = tf.maximum(1, room - tf.cast(fixed.row_lengths(), tf.int32))
    overlap = tf.minimum(stride, room - 1)
    step = room - overlap
    count = 1 + tf.maximum(0, -(-(length - room) // step))  # windows of each text

    example = tf.repeat(tf.range(tf.size(length)), count)  # [R]
    number = tf.range(tf.size(example)) - tf.repeat(tf.cumsum(count, exclusive=True), count)
    room, overlap, step, count, length = (tf.gather(x, example) for x in (room, overlap, step, count, length))
    first = number * step
    last = tf.minimum(first + room, length)
    piece = tf.ragged.range(first, last)  # [R, (m)]
    row = tf.cast(piece.value_rowids(), tf.int32)
    # Of an overlap of s pieces the first ceil(s / 2) belong to the window before.
    behind = piece.values - tf.gather((overlap + 1) // 2, row)
    owner = tf.clip_by_value(behind // tf.gather(step, row), 0, tf.gather(count, row) - 1)
    owned = owner == tf.gather(number, row)

    origin = tf.gather(tf.cast(sliding.ids.row_splits, tf.int32), example)
    index = piece.values + tf.gather(origin, row)
    cut = piece.with_values(tf.gather(sliding.ids.values, index))
    texts = [cut] if fixed is None else [tf.gather(fixed, example), cut]
    ids, spread = template.lay(*texts)
    mask = ids["attention_mask"]
    cls = tf.reduce_sum(mask, 1, keepdims=True) - 1 if template.cls_last else 0
    aligned = {name: spread(tf.gather(getattr(sliding, name).values, index), 0) for name in ("start", "end", "word")}
    return Rows(
        ids=ids,
        example=example,
        count=tf.size(sliding.ids.row_splits, tf.int32) - 1,
        piece=spread(piece.values, -1),
        owned=spread(owned, False),
        cls=(tf.range(tf.shape(mask)[1]) == cls) & (mask > 0),
        **aligned,
    )

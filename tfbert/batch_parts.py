"""Parts of a batch: some of its examples with all their rows."""

from __future__ import annotations

from collections.abc import Mapping

from tfbert._compat import plain, tf


def count(tensors):
    """The first dimension of tensors that belong together, int32 scalar."""
    return tf.shape(tf.nest.flatten(tensors)[0])[0]


def cut(inputs, targets, weights, begin, end):
    """The examples from `begin` up to `end`, with all their rows: what is beside "example" says which are theirs, or each has as many.

    Args:
        inputs: a dict of tensors [R, ...], or whatever else a Keras model takes.
        targets: [B, ...], or a dict of such.
        weights: float32 [B], a dict of such, or None.
        begin: int32 scalar.
        end: int32 scalar.

    Returns:
        The part's inputs, targets and weights.

    Example:
        >>> inputs = {"input_ids": tf.constant([[7], [8], [9]]), "example": tf.constant([0, 1, 1])}
        >>> inputs, targets, _ = cut(inputs, tf.constant([4, 5]), None, 1, 2)
        >>> inputs["input_ids"].numpy().tolist(), inputs["example"].numpy().tolist(), targets.numpy().tolist()
        ([[8], [9]], [0, 0], [5])
    """
    of_example = (
        tf.nest.map_structure(lambda tensor: tensor[begin:end], targets),
        None if weights is None else tf.nest.map_structure(lambda tensor: tensor[begin:end], weights),
    )
    if isinstance(inputs, Mapping) and "example" in inputs:
        first, last = tf.unstack(tf.searchsorted(inputs["example"], tf.stack([begin, end])))
        own = {name: tensor[first:last] for name, tensor in inputs.items()}
        return {**own, "example": own["example"] - begin}, *of_example
    each = count(inputs) // count(targets)
    return tf.nest.map_structure(lambda tensor: tensor[begin * each : end * each], inputs), *of_example


def for_replicas(dataset, replicas: int, own: range | None = None):
    """Cuts each batch into as many parts of equal size, one after the other, as a strategy hands them to its replicas.

    Args:
        dataset: batches of inputs, targets and weights, whose numbers of examples are multiples of `replicas`.
        replicas: how many there are.
        own: the parts wanted, those of one of several workers (default: all).
    """
    own = range(replicas) if own is None else own

    def parts(*batch):
        share = count(batch[1]) // replicas
        return tf.data.Dataset.range(own.start, own.stop, output_type=tf.int32).map(
            plain(lambda i: cut(*batch, i * share, (i + 1) * share))
        )

    return dataset.flat_map(plain(parts))

"""Gradients of our own for parts of a model, of which nothing stays behind when the model goes."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

from tfbert._compat import lazy, tf

ops = lazy("tensorflow.python.framework.ops")


def custom_gradient(function: Callable) -> Callable:
    """tf.custom_gradient that does not keep each graph in memory for as long as the process runs.

    In a graph tf.custom_gradient registers the gradient, a closure that holds the graph's tensors, under a name of its own, for good
    (tensorflow/python/ops/custom_gradient.py): a process that trained several models held all their graphs, 20 MB for each run of two
    layers. Here the graph holds the closure, and the registry a weak reference to it.

    Args:
        function: as tf.custom_gradient takes it.
    """
    decorated = tf.custom_gradient(function)

    @functools.wraps(function)
    def computed(*arguments):
        result = decorated(*arguments)
        if not tf.executing_eagerly():
            _hand_over(tf.compat.v1.get_default_graph())
        return result

    return computed


def _hand_over(graph) -> None:
    """Has the graph keep the gradient that was registered last, so that it goes with the graph."""
    registry = getattr(ops.gradient_registry, "_registry", None)
    if not registry:  # of another form in another TensorFlow: all as it was
        return
    name, entry = next(reversed(registry.items()))
    gradient = entry.get("type")
    if not name.startswith("CustomGradient-") or gradient is None:
        return
    if not hasattr(graph, "tfbert_gradients"):
        graph.tfbert_gradients = []
    graph.tfbert_gradients.append(gradient)
    weak = weakref.ref(gradient)
    entry["type"] = lambda *arguments: weak()(*arguments)

"""The frozen bottom of a lean encoder: how much of it there is, what it computes, and computing on from there.

A rung is a number of parts from the bottom, the embeddings being the first: the states of rung 0 are none, those of rung 1 the output
of the embeddings, those of rung n + 1 the output of the highest of n layers.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tfbert.models.keras_model import transformer_of

STATES = "frozen_states"  # the name of what a batch brings beside the ids
LOWEST = 2  # the lowest rung worth keeping: looking up embeddings costs no more than reading them
_GIVEN: contextvars.ContextVar[Any] = contextvars.ContextVar("given", default=None)
_WANTED: contextvars.ContextVar[dict | None] = contextvars.ContextVar("wanted", default=None)


@contextlib.contextmanager
def given(states) -> Iterator[None]:
    """Within it, an encoder whose frozen rung is at least LOWEST takes these for its states: [B, T, D], or [B, 1, D] where the highest
    layer is frozen and the head reads the first token only."""
    token = _GIVEN.set(states)
    try:
        yield
    finally:
        _GIVEN.reset(token)


@contextlib.contextmanager
def wanted(rungs: Iterable[int]) -> Iterator[dict]:
    """Within it, an encoder puts the states of these rungs into the dict that this gives: flat, [N, D] of the N real tokens."""
    found = dict.fromkeys(rungs)
    token = _WANTED.set(found)
    try:
        yield found
    finally:
        _WANTED.reset(token)


def states_given():
    """What `given` was told, or None."""
    return _GIVEN.get()


def keep(rung: int, states, pick: Callable[[Any], Any]) -> None:
    """Gives `wanted` what `pick` makes of the states of a rung, where it is wanted."""
    found = _WANTED.get()
    if found is not None and rung in found:
        found[rung] = pick(states)


def frozen_rung(model) -> int:
    """The highest rung below all that learns, whose states no step of training changes; 0 without a lean encoder, or where nothing is.

    Args:
        model: what `load` or `as_keras` returned.

    Example:
        >>> from tfbert._compat import transformers
        >>> from tfbert.models import freeze
        >>> from tfbert.models.lean import put
        >>> from tfbert.models.loading import quiet
        >>> config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> with quiet():
        ...     model = transformers.TFBertForSequenceClassification(config)
        ...     model.build_in_name_scope()
        >>> put(model, first_token=True)
        >>> freeze(model, "embeddings", "layers[:1]")
        >>> frozen_rung(model)
        2
    """
    encoder = lean_encoder(model)
    return 0 if encoder is None else encoder.frozen_rung()


def lean_encoder(model):
    """The LeanEncoder that `put` put in the place of a model's own, or None."""
    model = transformer_of(model)
    return vars(getattr(model, getattr(model, "base_model_prefix", ""), model)).get("lean")

"""Text written token by token: which one comes next, until it ends; as TensorFlow operations, in Python and in an export alike.

TF Transformers' own `generate` cannot be exported for this: of its ways, beam search, top-p and the repetition penalty are not traced for
batches of any size, its samples and its penalties depend on the other rows of the batch and on their padding, and its beams go on until
the last row is done. Its models are used as they are, with their cache; so are its rules, which the tests compare number by number.
"""

from __future__ import annotations

from tfbert.decoding.generation.generate import generate
from tfbert.decoding.generation.settings import Generation
from tfbert.decoding.generation.steps import NOTHING, Steps

__all__ = ["NOTHING", "Generation", "Steps", "generate"]

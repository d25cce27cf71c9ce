"""A step of a normalizer, and rules for single characters."""

from __future__ import annotations

import abc
import dataclasses

import numpy as np

from tfbert._compat import tf
from tfbert.tokenization.characters import CODE_POINTS
from tfbert.tokenization.code_points import MARKERS, CodePointTable, code_point_table

ITSELF = -1
ALL = np.arange(CODE_POINTS + MARKERS, dtype=np.int32)
# What makes neighbours a matter for the steps themselves, by the masks that `Step.alone` gives: quotes that may be a pair, spaces, a
# grapheme of less than six bytes, and white space at a text's beginning and end.
QUOTE, BLANK, SHORT, BEGIN, END = (1 << i for i in range(5))
MASK_BITS = 5


class Step(abc.ABC):
    """One normalizer."""

    @abc.abstractmethod
    def __call__(self, value, origin) -> tuple:
        """The characters after it."""

    @abc.abstractmethod
    def alone(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What becomes of single characters among others that do not concern them.

        Args:
            values: int32 [C].

        Returns:
            The characters after the step, int32 [C]; bool [C], whether that is not all that can be said of them; and two bit masks, int32
            [C]: it is not either where a bit of the first, of one character, is in the second, of the next.
        """


@dataclasses.dataclass(frozen=True)
class Rules:
    """What some characters become: `rows[table[c]]`, ITSELF for the character as it is; row 0 is that of all others."""

    table: CodePointTable
    values: np.ndarray  # int32, all rows one after the other
    splits: np.ndarray  # int64 [rows + 1]
    singles: (
        np.ndarray
    )  # int32 [CODE_POINTS + MARKERS], the one character that each becomes; ITSELF where it is none or several

    def apply(self, value, rows=None) -> tuple:
        """The new characters, int32 [O], and which of [M] each comes from, int32 [O], and the row splits, int32 [M + 1]."""
        rules = tf.RaggedTensor.from_row_splits(self.values, self.splits, validate=False)
        found = tf.gather(rules, self.table(value) if rows is None else rows)
        splits = tf.cast(found.row_splits, tf.int32)
        size = tf.size(found.values)
        owner = tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(splits[1:-1]), splits[1:-1], size + 1))[:-1]
        return tf.where(found.values == ITSELF, tf.gather(value, owner), found.values), owner, splits


def rules_of(changed: dict[str, str], more: tuple[str, ...] = ()) -> Rules:
    """Packs what single characters become; `more` are the replacements of the rows after theirs."""
    table, singles = np.zeros_like(ALL), ALL.copy()
    rows = [(ITSELF,), *(tuple(map(ord, text)) for text in (*changed.values(), *more))]
    for row, (ch, text) in enumerate(changed.items(), 1):
        table[ord(ch)] = row
        singles[ord(ch)] = ord(text) if len(text) == 1 else ITSELF
    splits = np.cumsum([0, *map(len, rows)])
    return Rules(code_point_table(table), np.array([c for row in rows for c in row], np.int32), splits, singles)

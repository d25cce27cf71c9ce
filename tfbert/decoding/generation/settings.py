"""How text is written: the settings, checked."""

from __future__ import annotations

import dataclasses
import math

from tfbert.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """How the next token is chosen, and when a text ends; the names are those of Transformers' `generate`.

    Args:
        max_new_tokens: tokens that are written, at most (default 32).
        min_new_tokens: tokens before which no text ends (default 0).
        num_beams: how many texts are followed side by side, of which the likeliest is the answer; 1 (default) follows one.
        length_penalty: of beams: the sum of a text's log-probabilities is divided by its length to this power; above 0 favours long
            texts (default 1.0).
        do_sample: draw each token by its probability, and do not take the likeliest (default False).
        temperature: what the scores are divided by before a token is drawn: below 1 the likely ones become likelier (default 1.0).
        top_k: draw among so many of the likeliest tokens; 0 (default) among all.
        top_p: draw among the likeliest tokens that together have this probability (nucleus sampling; Holtzman et al. 2020); 1.0
            (default): among all.
        repetition_penalty: what the score of a token that was there before, in the prompt too, is divided by (multiplied, if it is
            negative); 1.0 (default) is none (Keskar et al. 2019, "CTRL", section 4.1).
        no_repeat_ngram_size: no so many tokens come twice in the same order; 0 (default): they may.
        seed: of the draws: of the same seed and prompt the text is the same, whatever stands in the other rows (default 0).

    Raises:
        InputError: a number outside its range, or settings that exclude each other.

    Example:
        >>> Generation(num_beams=4, do_sample=True)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: num_beams is 4, and do_sample draws tokens; beams are searched without drawing: leave one of the two out
    """

    max_new_tokens: int = 32
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int = 0

    def __post_init__(self):
        for name, least in (
            ("max_new_tokens", 1),
            ("min_new_tokens", 0),
            ("num_beams", 1),
            ("top_k", 0),
            ("no_repeat_ngram_size", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("temperature", "repetition_penalty"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a positive number, 1 for none")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1, which is all tokens")
        if not math.isfinite(self.length_penalty):
            raise InputError(f"length_penalty is {self.length_penalty}; it must be a finite number")
        if self.min_new_tokens > self.max_new_tokens:
            raise InputError(
                f"min_new_tokens is {self.min_new_tokens}, but max_new_tokens {self.max_new_tokens}; make the latter the larger one"
            )
        self._check_together()

    def _check_together(self) -> None:
        if self.num_beams > 1 and self.do_sample:
            raise InputError(
                f"num_beams is {self.num_beams}, and do_sample draws tokens; beams are searched without drawing: leave one of the two out"
            )
        if self.num_beams == 1 and self.length_penalty != 1:
            raise InputError(
                f"length_penalty is {self.length_penalty}, which beams are compared by; give num_beams of 2 or more, or leave it out"
            )
        for name, none in (("temperature", 1), ("top_k", 0), ("top_p", 1)):
            if getattr(self, name) != none and not self.do_sample:
                raise InputError(
                    f"{name} is {getattr(self, name)}, which tokens are drawn by; add do_sample, or leave it out"
                )

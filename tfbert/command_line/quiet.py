"""Other packages' chatter, kept from the user's stderr and stdout: what is left there is tfbert's."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


def libraries() -> None:
    """Keeps other packages' chatter from the user's stderr; tfbert's own warnings come through in one line each."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"tfbert(\.|$)")
    warnings.showwarning = lambda message, *rest, **more: print(f"tfbert: warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def stdout_for_results() -> Iterator[TextIO]:
    """Gives the stream for results; whatever else writes to stdout in the block goes to stderr.

    Keras prints its progress from Python, and the tokenizers print from Rust ("The OrderedVocab you are attempting to save contains
    holes"), past Python's streams: so the file descriptor is turned, not only `sys.stdout`.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            number = stdout.fileno()
        except (AttributeError, io.UnsupportedOperation):  # a notebook's, or a test's: it has no descriptor to turn
            yield stdout
            return
        stdout.flush()
        results = open(os.dup(number), "w", encoding=stdout.encoding, newline="\n")  # noqa: SIM115 - closing may fail, and must not hide why
        os.dup2(2, number)
        try:
            yield results
        finally:
            os.dup2(results.fileno(), number)
            with contextlib.suppress(BrokenPipeError):
                results.close()

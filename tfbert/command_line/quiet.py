"""Other packages' chatter, kept from the user's stderr: what is left there is tfbert's."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
import warnings


def libraries() -> None:
    """Keeps other packages' chatter from the user's stderr; tfbert's own warnings come through in one line each."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"tfbert(\.|$)")
    warnings.showwarning = lambda message, *rest, **more: print(f"tfbert: warning: {message}", file=sys.stderr)


def load_tensorflow() -> None:
    """Loads TensorFlow without its start-up lines, some of which no setting silences ("Could not find cuda drivers ...").

    They are written by C++ to file descriptor 2. If loading fails they are evidence, so then they are shown.
    """
    if "tensorflow" in sys.modules or os.environ["TF_CPP_MIN_LOG_LEVEL"] < "2":
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # at 2 a machine without a GPU still gets "failed call to cuInit"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow").config.list_physical_devices()
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)

"""A checkpoint's fast tokenizer, loaded so that a user's text is only ever text."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import tokenizers

from tfbert._compat import transformers
from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError
from tfbert.files import read_json
from tfbert.tokenization.encoding import no_panic

_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def load_tokenizer(checkpoint: str | Path):
    """Loads the fast tokenizer of a checkpoint.

    Special tokens in a text ("[SEP]", "<s>") are read as the characters they are, in every later call and after
    `save_pretrained`. Truncation and padding that tokenizer.json may ask for are switched off: they are for `encode`
    and `make_dataset` to decide. Offsets of byte-level pieces never hold the space before a word, so that no entity or
    answer begins with it; GPT-2's own do. Code that a checkpoint brings along is never run.

    A folder that holds nothing but vocab.txt is a BERT vocabulary, read as uncased when no entry has a capital letter.

    Args:
        checkpoint: a local folder, "all-MiniLM-L6-v2", or a name on the Hugging Face hub (see `find_checkpoint`).

    Returns:
        A `transformers.PreTrainedTokenizerFast`.

    Raises:
        InputError: there is no such checkpoint, a file of it is damaged, or it has no fast tokenizer.

    Example:
        >>> tokenizer = load_tokenizer("all-MiniLM-L6-v2")
        >>> tokenizer.tokenize("Hello [SEP] world")
        ['hello', '[', 'sep', ']', 'world']
    """
    folder = find_checkpoint(checkpoint)
    if not (folder / "tokenizer.json").exists() and (folder / "vocab.txt").exists():
        _check_vocabulary(folder / "vocab.txt")
    tokenizer = _load(folder)
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{folder}: {type(tokenizer).__name__} has no fast version; convert it with transformers and save its tokenizer.json here"
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    _make_special(tokenizer)
    _trim_offsets(backend)
    tokenizer.model_input_names = _inputs(folder, tokenizer.model_input_names)
    return tokenizer


def _load(folder: Path):
    configured = any((folder / name).exists() for name in ("tokenizer_config.json", "config.json"))
    options = {"split_special_tokens": True}
    file = folder / ("tokenizer.json" if (folder / "tokenizer.json").exists() else "vocab.txt")
    if not configured and not file.exists():
        inner = (
            "; pass its folder checkpoint/"
            if (folder / "checkpoint").is_dir()
            else "; save the tokenizer beside the weights"
        )
        raise InputError(f"{folder} holds no tokenizer (no tokenizer.json, vocab.txt or tokenizer_config.json){inner}")
    if file.name == "tokenizer.json":
        _check_json(file)
    try:
        with no_panic(str(file)), _quiet():
            if configured:
                return transformers.AutoTokenizer.from_pretrained(
                    folder, use_fast=True, trust_remote_code=False, local_files_only=True, **options
                )
            if file.name == "vocab.txt":
                return transformers.BertTokenizerFast(str(file), do_lower_case=_is_uncased(file), **options)
            tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), **options)
            names = dict(
                zip(
                    ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
                    (*_BERT_SPECIALS, "[MASK]"),
                    strict=True,
                )
            )
            vocabulary = tokenizer.get_vocab()
            tokenizer.add_special_tokens({name: token for name, token in names.items() if token in vocabulary})
            return tokenizer
    except InputError:
        raise
    except Exception as error:  # tokenizers raises a bare Exception for a malformed file, transformers five other kinds
        place, reason = _blame(folder, file, error)
        raise InputError(
            f"{place}: the tokenizer cannot be loaded ({reason}); restore its files or save it again"
        ) from error


def _inputs(folder: Path, names: list[str]) -> list[str]:
    """Of the ids that a tokenizer gives those that the folder's model takes: what is given by the tokenizer class of its model type.

    A Longformer or DistilBERT with a BertTokenizer takes no token types.
    """
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = config.get("model_type") if isinstance(config, dict) else None
    classes = transformers.models.auto.tokenization_auto.TOKENIZER_MAPPING_NAMES.get(str(kind)) or ()
    own = next((getattr(transformers, name).model_input_names for name in reversed(classes) if name), names)
    return [name for name in names if name in own]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Transformers from warning, of every large vocabulary in a local folder, that it has a wrong pattern of Mistral's."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _blame(folder: Path, file: Path, error: Exception) -> tuple[Path, str]:
    """The file that is at fault, where the Rust tokenizer can tell, and the first line of what was said about it."""
    if file.name == "tokenizer.json" and file.exists():
        try:
            tokenizers.Tokenizer.from_file(str(file))
        except Exception as own:  # the only kind it raises
            return file, str(own)
    return folder, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _check_json(file: Path) -> None:
    """A damaged tokenizer.json is named here; transformers would fall back on a slow tokenizer or blame another package."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON ({error}); restore it or save the tokenizer again") from error
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        raise InputError(f"{file} is not a tokenizer: it has no 'model'; restore it or save the tokenizer again")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 (byte {error.start}); save it again as UTF-8") from error


def _check_vocabulary(file: Path) -> None:
    """One token a line, each once, BERT's special tokens among them: otherwise every id after the fault is silently wrong."""
    lines = _lines(file)
    if lines and lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{file} is empty; expected one token a line")
    if lines[0].startswith("\ufeff"):
        raise InputError(f"{file}:1: begins with a byte order mark; save it as UTF-8 without one")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line.endswith("\r"):
            raise InputError(f"{file}:{number}: ends in CRLF (Windows line ends); convert it to LF, as with dos2unix")
        if not line:
            raise InputError(
                f"{file}:{number}: the line is empty; every line is one token, and a deleted one shifts all ids after it"
            )
        if line in seen:
            raise InputError(f"{file}:{number}: {line!r} is already on line {seen[line]}; every token has one id")
        seen[line] = number
    if missing := [token for token in _BERT_SPECIALS if token not in seen]:
        raise InputError(
            f"{file} has no {missing[0]} in its {len(lines)} lines; a BERT vocabulary needs {', '.join(_BERT_SPECIALS)}"
        )


def _is_uncased(file: Path) -> bool:
    return not any(line != line.lower() for line in _lines(file) if not line.startswith("["))


def _make_special(tokenizer) -> None:
    """Marks every special token as such in the Rust tokenizer: `encode_special_tokens` lets only those be read as text."""
    backend = tokenizer.backend_tokenizer
    added = backend.get_added_tokens_decoder().values()
    specials = [token for token in added if token.content in tokenizer.all_special_tokens and not token.special]
    for token in specials:
        token.special = True
    backend.add_special_tokens(specials)
    backend.encode_special_tokens = True
    if isinstance(backend.model, tokenizers.models.Unigram):
        # Scores change in their last digit when they are first written as JSON: all that read these tokens read the same ones.
        backend.model = tokenizers.Tokenizer.from_str(backend.to_str()).model
        _guard_unigram(backend, [token for token in tokenizer.all_special_tokens if len(token) > 1])


def _trim_offsets(backend) -> None:
    """Takes the space off the offsets of byte-level pieces, " Paris", where the post-processor does not do it."""
    settings = json.loads(backend.to_str())
    pre_tokenizer, now = settings["pre_tokenizer"] or {}, backend.post_processor
    if pre_tokenizer.get("type") == "ByteLevel" and '"trim_offsets": true' not in json.dumps(
        settings["post_processor"]
    ):
        trim = tokenizers.processors.ByteLevel(trim_offsets=True, add_prefix_space=pre_tokenizer["add_prefix_space"])
        backend.post_processor = tokenizers.processors.Sequence([*([now] if now else []), trim])


def _guard_unigram(backend, specials: list[str]) -> None:
    """Keeps a Unigram model from finding "</s>" in a text: it is an entry of its vocabulary, unlike in SentencePiece itself.

    A cut after the first character of each such string leaves nothing that the entry could match.
    """
    settings = json.loads(backend.to_str())
    entries = {entry for entry, _ in settings["model"]["vocab"]}
    cuts = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in specials if token in entries)
    if cuts and json.dumps(cuts) not in json.dumps(settings["pre_tokenizer"]):  # a saved tokenizer has the cut already
        before = [backend.pre_tokenizer] if backend.pre_tokenizer else []
        cut = tokenizers.pre_tokenizers.Split(tokenizers.Regex(cuts), "merged_with_previous")
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*before, cut])

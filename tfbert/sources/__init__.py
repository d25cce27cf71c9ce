"""Files, TensorFlow Datasets and iterables -> checked examples (plain dicts that know where they came from)."""

from tfbert.sources.conll import read_conll
from tfbert.sources.examples import Examples, from_iterable
from tfbert.sources.json_lines import read_json, read_jsonl
from tfbert.sources.parquet import read_parquet
from tfbert.sources.reading import read, read_documents, read_lines, read_parallel
from tfbert.sources.splitting import canonical, fingerprint, split
from tfbert.sources.squad import questions, read_squad
from tfbert.sources.streaming import Stream, documents, stream, windows
from tfbert.sources.tables import read_csv
from tfbert.sources.tfds import read_tfds

__all__ = [
    "Examples",
    "Stream",
    "canonical",
    "documents",
    "from_iterable",
    "fingerprint",
    "questions",
    "read",
    "read_conll",
    "read_csv",
    "read_documents",
    "read_json",
    "read_jsonl",
    "read_lines",
    "read_parallel",
    "read_parquet",
    "read_squad",
    "read_tfds",
    "split",
    "stream",
    "windows",
]

"""Fixtures that every test may use: the development data, the packaged checkpoint, and tiny models made here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real development data; tests that need it are skipped where it is absent."""
    place = Path(os.environ.get("TFBERT_DATA", ROOT.parent / "shared" / "data"))
    if not place.is_dir():
        pytest.skip("the development data (../shared/data, or TFBERT_DATA) is not on this machine")
    return place

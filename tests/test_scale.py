"""docs/scale.md: its tables are those of benchmarks/scale.py, whose arithmetic has the published figures."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scale() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks" / "scale.py"))


def test_the_page_shows_what_the_script_computes(scale):
    text = (ROOT / "docs" / "scale.md").read_text("utf-8")
    assert scale["page"](text) == text, "run benchmarks/scale.py"
    assert text.count("<!-- end -->") == 4 and f"times {scale['REACHED']:.0%}," in text
    for link in ("examples/local_workers.py", "examples/beam_score.py", "examples/slurm/training.sbatch"):
        assert f"(../{link})" in text and (ROOT / link).is_file()


def test_operations_are_those_of_the_products(scale):
    model, length = scale["BASE"], 128
    width, inner = model.width, 4 * model.width
    products = [(length, width, 3 * width), (length, width, width), (length, width, inner), (length, inner, width)]
    attention = [(length, width, length), (length, length, width)]  # all heads together
    counted = model.layers * sum(2 * m * k * n for m, k, n in products + attention)
    assert model.operations(length) * length == counted


def test_a_ring_of_two_sends_all_numbers_once_and_of_many_twice(scale):
    assert scale["ring"](1_000, 2, 4_000.0, 0.0) == pytest.approx(1.0)
    assert scale["ring"](1_000, 1_000, 4_000.0, 0.0) == pytest.approx(1.998)
    assert scale["ring"](0, 5, 1.0, 0.25) == pytest.approx(2.0)
    assert scale["ring"](1_000, 1, 1.0, 1.0) == 0

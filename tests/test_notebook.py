"""The notebook runs from top to bottom, with a tiny checkpoint and one epoch, and its parts agree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_it_runs_from_top_to_bottom(tiny, tmp_path, monkeypatch):
    nbformat, nbclient = (pytest.importorskip(name) for name in ("nbformat", "nbclient"))
    book = nbformat.read(EXAMPLES / "colab_tpu.ipynb", as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)  # none are kept in the repository
    for name, value in {"EXAMPLES": EXAMPLES, "CHECKPOINT": tiny, "EPOCHS": 2}.items():
        monkeypatch.setenv(f"TFBERT_{name}", str(value))
    nbclient.NotebookClient(book, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()

    def result(cell) -> object:
        (found,) = [output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result"]
        return ast.literal_eval(found)

    _, strategy, tuned, report, own, served = code
    assert "OneDeviceStrategy with 1 replicas" in strategy.outputs[-1].text
    assert 0 <= result(tuned)["accuracy"] <= 1 and 0 <= result(tuned)["f1_macro"] <= 1
    assert "<svg" in str(report.outputs[-1].data) or "<img" in str(report.outputs[-1].data)
    first, second = result(own)["loss"]
    assert second < first
    assert [answer.keys() >= {"label", "score"} for answer in result(served)] == [True, True]
    assert (tmp_path / "saved_models" / "delivery" / "1" / "saved_model.pb").is_file()

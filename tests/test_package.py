"""The package as a whole: its names, what importing costs, its version, and the order in which its modules may import each other."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import tfbert
from tfbert.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(tfbert.__file__).resolve().parent
MODULES = sorted(PACKAGE.rglob("*.py"))

HEAVY = (
    "tensorflow",
    "tf_keras",
    "keras",
    "keras_nlp",
    "transformers",
    "tensorflow_text",
    "tensorflow_datasets",
    "torch",
)

# Rank by rank: a module imports from lower ranks, or from its own package.
ORDER = [
    {"errors"},
    {"_compat", "files", "names"},
    {"batch_parts", "checkpoint_folder", "devices", "shuffling", "static_shapes"},
    {"signals", "workers"},
    {"sources", "tokenization", "decoding", "losses", "metrics", "schedules", "optimizers", "plots"},
    {"masking"},
    {"pairing", "corruption"},
    {"features"},
    {"pipeline", "models"},
    {"tasks", "frozen_states"},
    {"prepared"},
    {"analysis", "report"},
    {"evaluation", "entailment", "serving"},
    {"checkpoints", "callbacks"},
    {"distillation", "tuned"},
    {"adaptation", "checks"},
    {"run"},
    {"training"},
    {"__init__", "command_line", "__main__"},
]
# Pairs within a rank (importer, imported), and of ranks against the order, each with its reason.
ALLOWED = {
    ("evaluation", "serving"),  # answers as plain rows, in the form of the export's
    ("__main__", "command_line"),
    ("__main__", "__init__"),
    ("command_line", "__init__"),  # the commands are users of the public names
}
# Which module may name which heavy package at its top; the others reach them through _compat's lazy proxies.
MAY_IMPORT = {"schedules": {"tf_keras"}, "optimizers": {"tf_keras"}, "callbacks": {"tf_keras"}}


def stage(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def run(code: str, without: str = "") -> str:
    """What a fresh Python prints that sees the tfbert of this test, and the environment but for one variable."""
    environment = {name: value for name, value in os.environ.items() if name != without}
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT / "tests", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names_are_sorted_and_there():
    assert tfbert.__all__ == sorted(tfbert.__all__)
    for name in tfbert.__all__:
        assert getattr(tfbert, name) is not None
        assert name in dir(tfbert)


def test_a_misspelt_public_name_is_told_with_the_nearest():
    with pytest.raises(AttributeError, match="no attribute 'finetune'. Did you mean 'fine_tune'"):
        tfbert.finetune  # noqa: B018


def test_public_names_have_docstrings():
    missing = [name for name in tfbert.__all__ if not (getattr(tfbert, name).__doc__ or "").strip()]
    assert not missing


def test_importing_tfbert_loads_nothing_heavy_and_asks_for_keras_2():
    loaded = f"[name for name in {HEAVY + ('numpy', 'pyarrow')} if name in sys.modules]"
    code = f"import sys, os; import tfbert; print({loaded}, os.environ['TF_USE_LEGACY_KERAS'])"
    assert run(code, without="TF_USE_LEGACY_KERAS") == "[] 1"


@pytest.mark.parametrize(
    "module", ["tasks", "sources", "tokenization", "models", "pipeline", "evaluation", "serving", "training"]
)
def test_importing_a_stage_does_not_import_tensorflow(module):
    assert run(f"import sys; import tfbert.{module}; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_loading_a_tensorflow_class_does_not_load_what_it_never_calls():
    """Transformers' TensorFlow classes import its metrics for GLUE, and those SciPy's and scikit-learn's; who calls them gets them."""
    pytest.importorskip("sklearn", reason="metrics for GLUE need scikit-learn")
    code = """
import sys
from tfbert._compat import transformers
transformers.TFBertModel
print([name for name in ("sklearn", "scipy.stats") if name in sys.modules])
import warnings
import numpy as np
from transformers import glue_compute_metrics
from transformers.data.metrics import squad_metrics
from transformers.data.metrics.squad_metrics import normalize_answer
assert squad_metrics.normalize_answer is normalize_answer
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are deprecated
    print(glue_compute_metrics("mrpc", np.array([1, 0, 1, 1]), np.array([1, 0, 0, 1]))["f1"], normalize_answer("The cat"))
import transformers.data.metrics
print(transformers.data.metrics.f1_score.__module__.startswith("sklearn"))
"""
    assert run(code).splitlines() == ["[]", "0.8 cat", "True"]


def test_version_is_that_of_the_changelog_and_of_the_installed_package():
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert newest == tfbert.__version__
    if installed():
        assert importlib.metadata.version("tfbert") == newest


def installed() -> bool:
    return PACKAGE.is_relative_to(sysconfig.get_paths()["purelib"])


def test_make_test_tests_what_users_install():
    """In the environment of `make test` the package is imported from site-packages, with its data files."""
    if not Path(sys.prefix).is_relative_to(ROOT):
        pytest.skip("not in the environment of `make test`")
    assert installed()
    source = {
        path.relative_to(ROOT / "tfbert")
        for path in (ROOT / "tfbert").rglob("*")
        if path.suffix in (".py", ".json", ".typed")
    }
    there = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.suffix in (".py", ".json", ".typed")}
    assert there == source
    for path in source:
        assert (PACKAGE / path).read_bytes() == (ROOT / "tfbert" / path).read_bytes(), (
            f"{path}: run `make test`, which installs it anew"
        )


def imports(path: Path) -> list[tuple[str, int]]:
    """The modules a file imports, as (dotted name, line); `from tfbert import models` is tfbert.models."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write it out"
            if node.module == "tfbert":
                found += [(f"tfbert.{alias.name}", node.lineno) for alias in node.names]
            else:
                found.append((node.module, node.lineno))
    return found


def test_every_module_has_its_place_in_the_order():
    unknown = {stage(path) for path in MODULES} - set().union(*ORDER)
    assert not unknown


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    rank = {name: number for number, names in enumerate(ORDER) for name in names}
    own = stage(path)
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] == "tfbert":
            other = parts[1] if len(parts) > 1 and parts[1] in rank else "__init__"
            fits = other == own or rank[other] < rank[own] or (own, other) in ALLOWED
            assert fits, f"{path.relative_to(ROOT.parent)}:{line}: {own} must not import {other}"
        if parts[0] in HEAVY:
            assert parts[0] in MAY_IMPORT.get(own, ()), f"{path}:{line}: take {parts[0]} from tfbert._compat"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_foreign_packages_stay_where_they_belong(path):
    """transformers only in tokenization and models, tensorflow_text only where tokens are made."""
    places = {"transformers": {"tokenization", "models"}, "tf_text": {"tokenization", "pipeline", "serving"}}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "tfbert._compat":
            for alias in node.names:
                assert stage(path) in places.get(alias.name, {stage(path)}), (
                    f"{path}:{node.lineno}: {alias.name} does not belong here"
                )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_hides_in_a_function(path):
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [node.lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
            assert not hidden, f"{path}:{hidden}: move the import to the top"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_is_read_can_run(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_fit_in_the_head(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert not {"utils", "util", "helpers", "common", "misc"} & set(path.with_suffix("").parts[len(PACKAGE.parts) :])
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not text.strip(), f"{path} does not say what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
            # Without the arguments: fine_tune's are its configuration, a line each.
            first = node.body[0].lineno
            lines = node.end_lineno - first + 1 - said
            assert lines <= 50, f"{path}:{node.lineno}: {node.name} has {lines} lines"


def test_what_the_package_needs_is_what_it_imports():
    """Every third-party package that the code imports is a declared dependency, by the name it is installed under."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = set(re.findall(r"^([\w-]+)", settings["options"]["install_requires"], re.MULTILINE))
    installed_as = {
        "tf_keras": "tf-keras",
        "tensorflow_text": "tensorflow-text",
        "tensorflow_datasets": "tensorflow-datasets",
    }
    used = {name.split(".")[0] for path in MODULES for name, _ in imports(path)}
    foreign = {installed_as.get(name, name) for name in used - set(sys.stdlib_module_names) - {"tfbert", "__future__"}}
    assert foreign <= declared


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)

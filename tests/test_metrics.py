"""Metrics against scikit-learn and SciPy, which only the tests need."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as reference

from tfbert import metrics
from tfbert.errors import InputError


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def drawn(seed, rows, size, *, coarse=False):
    random = np.random.default_rng(seed)
    labels = random.integers(0, size, rows)
    logits = random.normal(0, 1.5, (rows, size)) + 1.2 * np.eye(size)[labels]
    return labels, softmax(np.round(logits * 2) / 2 if coarse else logits)  # coarse: many ties


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("rows, size", [(400, 2), (400, 3), (300, 7), (25, 4)])
def test_classification_equals_scikit_learn(rows, size, coarse):
    labels, scores = drawn(rows + size, rows, size, coarse=coarse)
    predicted = scores.argmax(-1)
    macro = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "f1_macro": reference.f1_score(labels, predicted, **macro),
        "f1_micro": reference.f1_score(labels, predicted, average="micro"),
        "precision_macro": reference.precision_score(labels, predicted, **macro),
        "recall_macro": reference.recall_score(labels, predicted, **macro),
        "matthews_correlation": reference.matthews_corrcoef(labels, predicted),
        "log_loss": reference.log_loss(labels, scores, labels=range(size)),
        "roc_auc": reference.roc_auc_score(labels, scores[:, 1] if size == 2 else scores, multi_class="ovr"),
        "expected_calibration_error": calibration(labels == predicted, scores.max(-1)),
    }
    scored = metrics.classification(labels, scores, [str(index) for index in range(size)])
    assert scored == pytest.approx(expected, abs=1e-9)
    assert set(scored) <= set(metrics.HIGHER_IS_BETTER)
    json.dumps(scored, allow_nan=False)


def calibration(right, confidence):
    """Guo et al. 2017, equations 2 to 5, word for word."""
    total = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            total += inside.sum() / len(right) * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_absent_classes_leave_the_macro_average_and_the_area_out():
    labels = np.array([0, 0, 2, 2])
    scores = softmax(np.array([[3.0, 0, 0, -9], [0, 0, 2, -9], [0, 0, 1, -9], [1, 0, 5, -9]]))
    scored = metrics.classification(labels, scores, list("abcd"))
    predicted = scores.argmax(-1)
    assert scored["f1_macro"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"), abs=1e-12)
    assert "roc_auc" not in scored
    alone = metrics.classification([1, 1], [[0.0, 1.0], [0.0, 1.0]], ["no", "yes"])
    assert alone["matthews_correlation"] == 0.0 and alone["accuracy"] == 1.0 and "roc_auc" not in alone


def test_a_sure_and_wrong_answer_has_a_finite_log_loss():
    scored = metrics.classification([0, 1], [[0.0, 1.0], [0.0, 1.0]], ["no", "yes"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference.log_loss([0, 1], [[0.0, 1.0], [0.0, 1.0]])
    assert scored["log_loss"] == pytest.approx(expected, abs=1e-9)


def test_per_class_equals_scikit_learn():
    labels, scores = drawn(5, 200, 4)
    labels = np.where(labels == 2, 1, labels)  # a class without references
    predicted = np.where(scores.argmax(-1) == 3, 0, scores.argmax(-1))  # and one without answers
    columns = reference.precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0)
    scored = metrics.per_class(labels, predicted, list("wxyz"))
    assert list(scored) == list("wxyz")
    for index, name in enumerate("wxyz"):
        row = [scored[name][key] for key in ("precision", "recall", "f1", "support")]
        assert row == pytest.approx([column[index] for column in columns], abs=1e-12)
    matrix = metrics.confusion_matrix(labels, predicted, 4)
    assert matrix.tolist() == reference.confusion_matrix(labels, predicted, labels=range(4)).tolist()


def test_per_class_of_several_labels_a_row_equals_scikit_learn():
    random = np.random.default_rng(8)
    labels, predicted = random.random([60, 3]) < 0.4, random.random([60, 3]) < 0.5
    columns = reference.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for index, scored in enumerate(metrics.per_class(labels, predicted, list("abc")).values()):
        assert list(scored.values()) == pytest.approx([column[index] for column in columns], abs=1e-12)


@pytest.mark.parametrize("rows, size", [(300, 5), (40, 3)])
def test_multilabel_equals_scikit_learn(rows, size):
    random = np.random.default_rng(rows)
    labels = random.random((rows, size)) < np.linspace(0.1, 0.7, size)
    scores = 1 / (1 + np.exp(-(random.normal(size=(rows, size)) + labels)))
    scores[:, 0] = scores[:, 0].round(1)
    thresholds = np.linspace(0.3, 0.6, size)
    predicted = scores >= thresholds
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "log_loss": np.mean([reference.log_loss(labels[:, i], scores[:, i]) for i in range(size)]),
        "roc_auc": reference.roc_auc_score(labels, scores, average="macro"),
    }
    for average in ("macro", "micro"):
        options = {"average": average, "zero_division": 0}
        expected[f"f1_{average}"] = reference.f1_score(labels, predicted, **options)
        expected[f"precision_{average}"] = reference.precision_score(labels, predicted, **options)
        expected[f"recall_{average}"] = reference.recall_score(labels, predicted, **options)
    scored = metrics.multilabel(labels, scores, thresholds)
    assert scored == pytest.approx(expected, abs=1e-9)
    assert set(scored) <= set(metrics.HIGHER_IS_BETTER)


def test_multilabel_areas_run_over_the_defined_labels():
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    scores = np.array([[0.9, 0.1, 0.5], [0.95, 0.2, 0.5], [0.97, 0.9, 0.4]])
    scored = metrics.multilabel(labels, scores, [0.5, 0.5, 0.5])
    assert scored["roc_auc"] == pytest.approx(reference.roc_auc_score(labels[:, 0], scores[:, 0]))
    assert "roc_auc" not in metrics.multilabel(labels[:, 1:], scores[:, 1:], [0.5, 0.5])


def f1_at(labels, scores, cut):
    return 2 * (labels & (scores >= cut)).sum() / (labels.sum() + (scores >= cut).sum())


@pytest.mark.parametrize("seed", range(8))
def test_tuned_thresholds_have_the_best_f1_of_all(seed):
    random = np.random.default_rng(seed)
    labels = random.random((60, 3)) < 0.3
    scores = np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0.01, 0.99).round(2).astype(np.float32)
    labels[:, 2] = False
    thresholds = metrics.tune_thresholds(labels, scores)
    assert thresholds[2] == 0.5
    for index in (0, 1):
        best = max(f1_at(labels[:, index], scores[:, index], cut) for cut in np.arange(0, 1.0, 0.0025))
        reached = reference.f1_score(labels[:, index], scores[:, index] >= thresholds[index])
        assert reached == pytest.approx(best, abs=1e-12)
        in_graph = scores[:, index] >= np.float32(thresholds[index])
        assert (in_graph == (scores[:, index] >= thresholds[index])).all()


def test_thresholds_of_equal_f1_take_the_one_nearest_one_half():
    # Cutting at 0.85 answers {0.9}: 2*1/(1+3) = 1/2. Cutting at 0.05 answers all 9: 2*3/(9+3) = 1/2.
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    labels = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1])
    f1 = {cut: reference.f1_score(labels, scores >= cut) for cut in (0.85, 0.05)}
    assert f1[0.85] == f1[0.05] == 0.5
    assert metrics.tune_thresholds(labels[:, None], scores[:, None])[0] == pytest.approx(0.85)
    assert metrics.tune_thresholds(np.array([[1], [1]]), np.array([[0.4], [0.4]]))[0] == pytest.approx(0.2)


def test_thresholds_between_adjacent_float32_scores_still_part_them():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    cut = metrics.tune_thresholds(np.array([[0], [1]]), np.array([[low], [high]]))
    assert (np.array([low, high]) >= np.float32(cut[0])).tolist() == [False, True]


def test_a_score_on_its_threshold_is_answered_as_in_a_float32_graph():
    scores = np.array([[0.7], [0.7]], np.float32)  # 0.699999988: below 0.7 in float64, equal to it in float32
    assert metrics.multilabel([[1], [1]], scores, [0.7])["accuracy"] == 1.0
    assert metrics.multilabel([[1], [0]], [[1], [0]], [0.7])["accuracy"] == 1.0


@pytest.mark.parametrize("ties", [False, True])
def test_regression_equals_scipy(ties):
    random = np.random.default_rng(11)
    labels = random.normal(2.5, 1.2, 300)
    predictions = 0.7 * labels + random.normal(0, 0.8, 300) + 1e6
    if ties:
        labels, predictions = labels.round(0), predictions.round(0)
    expected = {
        "pearson": scipy.stats.pearsonr(labels, predictions)[0],
        "spearman": scipy.stats.spearmanr(labels, predictions)[0],
        "mean_squared_error": reference.mean_squared_error(labels, predictions),
        "mean_absolute_error": reference.mean_absolute_error(labels, predictions),
    }
    assert metrics.regression(labels, predictions) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3])
def test_correlation_with_a_constant_is_zero(constant):
    scored = metrics.regression([1.0, 2.0, 4.0], [constant] * 3)
    assert scored["pearson"] == scored["spearman"] == 0.0


def test_directions():
    names = ("accuracy", "val_f1_macro", "log_loss", "val_loss")
    assert [metrics.direction(name) for name in names] == ["max", "max", "min", "min"]
    with pytest.raises(InputError, match=r"'val_acuracy' is not a known score.*Did you mean 'accuracy'\? give mode="):
        metrics.direction("val_acuracy")


MISTAKES = {
    "labels holds 2 at row 1; 2 classes have .* 0 to 1": lambda good: metrics.classification([0, 2], good, "ab"),
    "there are 1 references and 2 answers": lambda good: metrics.classification([0], good, "ab"),
    r"scores has shape \(2, 2\); give \[N, 3\]": lambda good: metrics.classification([0, 1], good, "abc"),
    "row 1 sum to 6.*after the softmax": lambda good: metrics.classification([0, 1], [good[0], [2.0, 4.0]], "ab"),
    "a score of row 1 is not finite": lambda good: metrics.classification([0, 1], [good[0], [np.nan, 1]], "ab"),
    "there are no examples to score": lambda good: metrics.classification([], np.zeros((0, 2)), "ab"),
    "give one class index for each example": lambda good: metrics.per_class([0.5], [0], "ab"),
    "one for each of the 2 labels": lambda good: metrics.multilabel([[1, 0], [0, 1]], good, [0.5]),
    "a score is -3; give .*after the sigmoid": lambda good: metrics.multilabel([[1, 0]], [[0.5, -3.0]], [0.5, 0.5]),
    r"labels has shape \(2,\) and scores \(2, 2\)": lambda good: metrics.multilabel([1, 0], good, [0.5, 0.5]),
    "a number that is not finite, at row 1": lambda good: metrics.regression([1.0, 2.0], [1.0, np.nan]),
    "one number for each example": lambda good: metrics.regression([[1.0]], [1.0]),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(InputError, match=message):
        MISTAKES[message]([[0.5, 0.5], [0.1, 0.9]])

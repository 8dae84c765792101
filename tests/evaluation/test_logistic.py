"""Logistic regression against scikit-learn's, on real digits that are neither centred nor of unit size."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from groco_cli.data.digits import digits
from groco_cli.evaluation.logistic import LinearClassifier, fit_path

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def examples() -> tuple[Tensor, Tensor]:
    """300 embedded digits, shrunk to 8 by 8: float32 [300, 64], and their labels."""
    images, labels = digits(train=True)
    small = F.adaptive_avg_pool2d(images[:300, :1].float(), 8).flatten(1)
    return small / 16 + 3, labels[:300]


def fitted(features: Tensor, labels: Tensor, *penalties: float) -> list[LinearClassifier]:
    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="sum")

    return list(fit_path(features, loss, 10, penalties, device=CPU))


@pytest.mark.parametrize("penalty", [100.0, 10.0, 1.0])
def test_equals_scikit_learns_optimum(examples, penalty: float):
    features, labels = examples
    (ours,) = fitted(features, labels, penalty)
    theirs = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10).fit(
        features.double().numpy(), labels.numpy()
    )
    torch.testing.assert_close(ours.weight, torch.tensor(theirs.coef_), rtol=1e-3, atol=1e-3)
    ranked = torch.tensor(theirs.decision_function(features.double().numpy()))
    # The biases are free up to a number common to all classes.
    logits = ours.logits(features)
    torch.testing.assert_close(
        logits - logits.mean(dim=1, keepdim=True), ranked - ranked.mean(dim=1, keepdim=True), rtol=1e-2, atol=1e-2
    )


def test_a_path_comes_to_the_same_as_each_fit_alone(examples):
    path = fitted(*examples, 1000.0, 10.0, 1.0)
    alone = [fitted(*examples, penalty)[0] for penalty in (1000.0, 10.0, 1.0)]
    for one, other in zip(path, alone, strict=True):
        torch.testing.assert_close(one.weight, other.weight, rtol=1e-3, atol=1e-4)
    assert path[0].weight.norm() < path[1].weight.norm() < path[2].weight.norm()


def test_a_regression_for_each_class_is_scikit_learns(examples):
    features, labels = examples
    shown = torch.stack([labels == 3, labels % 2 == 0], dim=1)

    def loss(logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, shown.to(logits), reduction="sum")

    (ours,) = fit_path(features, loss, 2, (1.0,), device=CPU)
    for label in (0, 1):
        theirs = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10).fit(
            features.double().numpy(), shown[:, label].numpy()
        )
        torch.testing.assert_close(ours.weight[label], torch.tensor(theirs.coef_[0]), rtol=1e-3, atol=1e-3)
        assert float(ours.bias[label]) == pytest.approx(theirs.intercept_[0], rel=1e-2, abs=1e-2)


def test_features_that_say_nothing_leave_the_classes_frequencies():
    labels = torch.tensor([0, 0, 0, 1])
    (flat,) = fitted(torch.ones(4, 3), labels, 1.0)
    chances = flat.logits(torch.ones(1, 3)).softmax(dim=1)[0]
    assert chances[:2].tolist() == pytest.approx([0.75, 0.25], abs=1e-3)

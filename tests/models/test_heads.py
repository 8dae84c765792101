import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groco_cli.models import Projector


def test_the_published_projector():
    linear = [("Linear", 2048, 2048, "no bias")]
    hidden = [*linear, ("BatchNorm1d", 2048, "affine"), ("ReLU",)]

    def described(module: nn.Module) -> tuple[object, ...]:
        kind = type(module).__name__
        if isinstance(module, nn.Linear):
            return kind, module.in_features, module.out_features, "no bias" if module.bias is None else "bias"
        if isinstance(module, nn.BatchNorm1d):
            return kind, module.num_features, "affine" if module.affine else "not affine"
        return (kind,)

    leaves = [described(module) for module in Projector(2048).modules() if not list(module.children())]
    assert leaves == [*hidden, *hidden, *linear, ("BatchNorm1d", 2048, "not affine")]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_projections_equal_the_layers_by_hand(layers: int):
    torch.manual_seed(0)
    projector = Projector(6, hidden=5, out=4, layers=layers).double()
    features = torch.randn(9, 6, dtype=torch.float64)
    state = list(projector.parameters())
    expected = features
    for _ in range(layers - 1):
        weight, scale, shift = state[:3]
        nn.init.uniform_(scale)
        nn.init.uniform_(shift)
        expected = F.relu(F.batch_norm(expected @ weight.T, None, None, scale, shift, training=True))
        state = state[3:]
    (weight,) = state
    expected = F.batch_norm(expected @ weight.T, None, None, training=True)
    torch.testing.assert_close(projector(features), expected)


def test_projections_are_standardised_over_the_batch():
    torch.manual_seed(0)
    projections = Projector(6, hidden=32, out=4)(torch.randn(500, 6) * 100 + 7)
    torch.testing.assert_close(projections.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(projections.std(dim=0, correction=0), torch.ones(4), rtol=0, atol=1e-3)


def test_features_are_left_as_they_were():
    features = torch.randn(4, 6)
    before = features.clone()
    Projector(6, hidden=5, out=4)(features)
    assert torch.equal(features, before)

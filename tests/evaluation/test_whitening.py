"""PCA whitening against scikit-learn's."""

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from groco_cli.errors import GrocoError
from groco_cli.evaluation.whitening import learn_whitening


def unit(count: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 3, dim)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator) * spread + 0.5, dim=1)


def test_similarities_are_those_of_scikit_learn():
    learnt_on, features = unit(200, 12), unit(9, 12, seed=1)
    expected = torch.from_numpy(PCA(whiten=True).fit(learnt_on.double().numpy()).transform(features.double().numpy()))
    expected = torch.nn.functional.normalize(expected, dim=1)
    found = learn_whitening(learnt_on)(features)
    assert found.shape == (9, 12)
    torch.testing.assert_close(found @ found.T, (expected @ expected.T).float(), rtol=1e-4, atol=1e-4)


def test_whitened_features_have_no_preferred_direction():
    learnt_on = unit(500, 6)
    whitening = learn_whitening(learnt_on)
    plain = (learnt_on - whitening.mean) @ whitening.projection
    torch.testing.assert_close(torch.cov(plain.T), torch.eye(6), rtol=1e-3, atol=1e-3)


def test_with_few_pictures_only_the_directions_they_span_are_kept():
    found = learn_whitening(unit(5, 64))(unit(3, 64, seed=1))
    assert found.shape == (3, 4)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("count", [1, 10])
def test_features_that_are_all_alike_are_told(count: int):
    with pytest.raises(GrocoError, match="--whiten: all features are alike"):
        learn_whitening(unit(1, 8).repeat(count, 1))

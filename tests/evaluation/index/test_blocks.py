"""Vectors of length one, however long or short they were."""

import math

import pytest
import torch
import torch.nn.functional as F

from groco_cli.evaluation.index.blocks import unit

LENGTHS = [1e-39, 1e-35, 1e-30, 1e-20, 1e-13, 1e-5, 1.0, 1e18, 1e20, 1e30, 1e38]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_vector_that_is_not_zero_has_length_one(vectors, dtype: torch.dtype):
    drawn = vectors(len(LENGTHS), 5).double()
    drawn = (drawn / drawn.abs().amax(dim=1, keepdim=True) * torch.tensor(LENGTHS)[:, None].double()).to(dtype)
    expected = [[number / math.hypot(*row) for number in row] for row in drawn.tolist()]
    torch.testing.assert_close(unit(drawn), torch.tensor(expected), rtol=1e-6, atol=1e-7)


def test_numbers_that_only_float64_holds_are_taken_too():
    assert unit(torch.tensor([[3e200, -4e200], [3e-200, 4e-200]], dtype=torch.float64)).tolist() == [
        pytest.approx([0.6, -0.8]),
        pytest.approx([0.6, 0.8]),
    ]


def test_zeros_stay_zero_and_others_do_not_see_them():
    drawn = torch.tensor([[0.0, 0.0], [3e30, 4e30], [0.0, -0.0], [3.0, 4.0]])
    found = unit(drawn)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.0, 0.0], [0.6, 0.8]]))
    assert unit(torch.zeros(0, 4)).shape == (0, 4)


def test_usual_vectors_are_torchs_to_the_last_bit(vectors):
    assert torch.equal(unit(vectors(300, 64)), F.normalize(vectors(300, 64), dim=1))

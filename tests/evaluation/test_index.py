import numpy as np
import pytest
import torch
from torch import Tensor

from groco_cli.evaluation.index import ExactIndex

CPU = torch.device("cpu")


def vectors(count: int, dim: int = 24, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1)


@pytest.mark.parametrize("queries", [1, 7, 300])
@pytest.mark.parametrize("k", [1, 5, 200])
def test_the_nearest_are_those_of_a_full_sort(queries: int, k: int):
    bank, asked = vectors(200), vectors(queries, seed=1)
    similarities, rows = ExactIndex(bank, CPU).search(asked, k)
    products = asked.double().numpy() @ bank.double().numpy().T
    expected = np.argsort(-products, axis=1)[:, :k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarities, np.take_along_axis(products, expected, axis=1), atol=1e-6)
    assert (similarities.dtype, rows.dtype) == (torch.float32, torch.int64)


def test_copies_are_equally_near_wherever_they_stand():
    bank = vectors(50)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    similarities, rows = ExactIndex(bank.repeat(3, 1)[order], CPU).search(vectors(40, seed=1), 150)
    of_bank = torch.empty(40, 150).scatter_(1, rows, similarities)
    by_copy = torch.empty(40, 150)
    by_copy[:, order] = of_bank
    first, second, third = by_copy.chunk(3, dim=1)
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_strided_vectors_are_read_rightly():
    bank, asked = vectors(20, 8), vectors(3, 8, seed=1)
    plain = ExactIndex(bank, CPU).search(asked, 4)
    strided = ExactIndex(bank.T.contiguous().T, CPU).search(asked.T.contiguous().T, 4)
    torch.testing.assert_close(strided, plain, rtol=0, atol=0)


def test_what_serves_is_told():
    assert ExactIndex(vectors(3), CPU).backend == "FAISS IndexFlatIP, exact, CPU"
    if not torch.cuda.is_available():
        assert ExactIndex(vectors(3), torch.device("cuda", 0)).backend == "FAISS IndexFlatIP, exact, CPU"

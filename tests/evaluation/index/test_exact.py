"""Every exact index that runs here, against a full sort of the cosines in float64."""

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

from groco_cli.errors import UsageError
from groco_cli.evaluation.index import Index, blocks, torch_index
from groco_cli.evaluation.index.blocks import result_bytes
from groco_cli.evaluation.index.faiss_index import FlatIndex, InvertedIndex
from groco_cli.evaluation.index.torch_index import TorchIndex

CPU = torch.device("cpu")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"))


def opened(name: str, bank: Tensor, memory: int = 10**9) -> Index:
    if name == "faiss":
        return FlatIndex(faiss, bank, memory=memory)
    if name == "all lists":
        return InvertedIndex(faiss, bank, lists=3, probes=3, memory=memory)
    return TorchIndex(bank, device=torch.device("cpu" if name == "torch" else name), memory=memory)


every = pytest.mark.parametrize("name", ["faiss", "torch", "all lists", CUDA])


def cosines(bank: Tensor, queries: Tensor) -> Tensor:
    bank, queries = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (bank, queries))
    return queries @ bank.T


@every
@pytest.mark.parametrize("queries", [1, 7, 60])
@pytest.mark.parametrize("k", [1, 5, 200])
def test_the_nearest_are_those_of_a_full_sort(vectors, name: str, queries: int, k: int):
    bank, asked = vectors(200), vectors(queries, seed=1)
    similarities, rows = opened(name, bank).search(asked, k)
    expected = cosines(bank, asked).sort(dim=1, descending=True)
    assert torch.equal(rows, expected.indices[:, :k])
    torch.testing.assert_close(similarities.double(), expected.values[:, :k], rtol=0, atol=1e-6)
    assert (similarities.dtype, rows.dtype, similarities.device, rows.device) == (torch.float32, torch.int64, CPU, CPU)


@every
@pytest.mark.parametrize("k", [1, 9, 50, 101])
def test_blocks_that_do_not_divide_change_nothing(vectors, monkeypatch, name: str, k: int):
    bank, asked = vectors(101), vectors(23, seed=1)
    whole = opened(name, bank).search(asked, k)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 16 * 4 * 24)
    monkeypatch.setattr(torch_index, "_MOST_ROWS", 16)
    monkeypatch.setattr(torch_index, "_MOST_QUERIES_ON_CPU", 5)
    monkeypatch.setattr("groco_cli.evaluation.index.faiss_index._OWN_BYTES", 0)
    five_at_once = 5 * (8 * 24 + result_bytes(k))
    if "faiss" not in name and "lists" not in name:
        five_at_once += 8 * 24 * 16 + 5 * 8 * 16
    similarities, rows = opened(name, bank, five_at_once).search(asked, k)
    assert torch.equal(rows, whole[1])
    torch.testing.assert_close(similarities, whole[0], rtol=0, atol=1e-6)


@every
def test_equally_near_ones_are_listed_by_their_row(name: str):
    bank = torch.eye(4)[torch.tensor([2, 0, 1, 0, 2, 0, 1, 1])]  # products of whole numbers: equal to the last bit
    similarities, rows = opened(name, bank).search(torch.tensor([[3.0, 0, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]]), 8)
    assert rows.tolist() == [[1, 3, 5, 0, 2, 4, 6, 7], [0, 4, 1, 2, 3, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert similarities.tolist() == [[1.0] * 3 + [0.0] * 5, [1.0] * 2 + [0.0] * 6, [0.0] * 8]


@every
def test_copies_are_all_found_wherever_they_stand(vectors, name: str):
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    bank = vectors(50).repeat(3, 1)[order]
    similarities, rows = opened(name, bank).search(vectors(10, seed=1), 150)
    assert torch.equal(rows.sort(dim=1).values, torch.arange(150).expand(10, -1))
    expected = cosines(bank, vectors(10, seed=1)).gather(1, rows)
    torch.testing.assert_close(similarities.double(), expected, rtol=0, atol=1e-6)
    assert (similarities.diff(dim=1) <= 0).all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_strided_vectors_of_any_type_are_read_and_left_alone(vectors, name: str, dtype: torch.dtype):
    bank, asked = vectors(20, 8).to(dtype), vectors(3, 8, seed=1).to(dtype)
    before = bank.clone(), asked.clone()
    plain = opened(name, bank).search(asked, 4)
    strided = opened(name, bank.T.contiguous().T).search(asked.T.contiguous().T, 4)
    torch.testing.assert_close(strided, plain, rtol=0, atol=1e-6)
    assert torch.equal(bank, before[0])
    assert torch.equal(asked, before[1])
    assert torch.equal(plain[1], cosines(bank, asked).argsort(dim=1, descending=True)[:, :4])


@every
def test_a_zero_is_as_near_to_all(name: str):
    similarities, rows = opened(name, torch.zeros(3, 2)).search(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 2)
    assert torch.equal(similarities, torch.zeros(2, 2))
    assert ((rows >= 0) & (rows < 3)).all()


@every
def test_no_queries_have_no_neighbours(vectors, name: str):
    similarities, rows = opened(name, vectors(5)).search(vectors(0), 2)
    assert (similarities.shape, rows.shape, rows.dtype) == ((0, 2), (0, 2), torch.int64)


@every
def test_memory_for_less_than_one_query_is_told(vectors, name: str):
    index = opened(name, vectors(50), memory=100)
    with pytest.raises(UsageError, match="--search-memory 100 bytes: a single query takes") as caught:
        index.search(vectors(1), 3)
    enough = int(caught.value.hint.removeprefix("type --search-memory ").removesuffix("MB or more")) * 10**6
    assert opened(name, vectors(50), memory=enough).search(vectors(1), 3)[1].shape == (1, 3)


@pytest.mark.parametrize("level", ["highest", "high", "medium"])
def test_torch_multiplies_in_whole_float32_whatever_it_is_told(vectors, level: str):
    bank, asked = vectors(300, 256), vectors(100, 256, seed=1)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(level)
    try:
        similarities, rows = TorchIndex(bank, device=CPU).search(asked, 5)
        assert torch.get_float32_matmul_precision() == level
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(similarities.double(), cosines(bank, asked).gather(1, rows), rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_fp16_is_rounded_before_it_is_multiplied_and_not_after(vectors):
    bank, asked = vectors(5000, 256), vectors(100, 256, seed=1)
    rounded, queries = (torch.nn.functional.normalize(x, dim=1).half().double() for x in (bank, asked))
    index = TorchIndex(bank, device=torch.device("cuda"), half=True)
    similarities, rows = index.search(asked, 20)
    np.testing.assert_allclose(similarities, (queries @ rounded.T).topk(20).values, atol=2e-6)
    torch.testing.assert_close(similarities.double(), (queries @ rounded.T).gather(1, rows), rtol=0, atol=2e-6)
    assert "fp16" in index.backend

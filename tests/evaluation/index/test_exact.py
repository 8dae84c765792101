"""Every exact index that runs here, against a full sort of the cosines in float64."""

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

from groco_cli.errors import UsageError
from groco_cli.evaluation.index import Index, blocks, exact, torch_index
from groco_cli.evaluation.index.blocks import result_bytes
from groco_cli.evaluation.index.faiss_gpu import GpuFlatIndex
from groco_cli.evaluation.index.faiss_index import FlatIndex, InvertedIndex
from groco_cli.evaluation.index.loading import load_faiss
from groco_cli.evaluation.index.torch_index import TorchIndex

CPU = torch.device("cpu")
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
NO_FAISS_CUDA = pytest.mark.skipif(not load_faiss()[0].get_num_gpus(), reason="no CUDA GPU that FAISS sees")


def opened(name: str, bank: Tensor, memory: int = 10**9) -> Index:
    if name == "faiss":
        return FlatIndex(faiss, bank, memory=memory)
    if name == "all lists":
        return InvertedIndex(faiss, bank, lists=3, probes=3, memory=memory)
    if name.startswith("faiss cuda"):
        return GpuFlatIndex(faiss, bank, gpus=range(1), half="half" in name, memory=memory)
    half = name.endswith(" half")
    device = torch.device("cuda" if "cuda" in name else "cpu")
    return TorchIndex(bank, device=device, half=half, memory=memory)


EXACT = ["faiss", "torch", pytest.param("cuda", marks=NO_CUDA), pytest.param("faiss cuda", marks=NO_FAISS_CUDA)]
HALVES = [pytest.param("cuda half", marks=NO_CUDA), pytest.param("faiss cuda half", marks=NO_FAISS_CUDA)]
every = pytest.mark.parametrize("name", [*EXACT, "all lists"])
every_exact = pytest.mark.parametrize("name", EXACT)


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
    monkeypatch.setattr(exact, "_MOST_ROWS", 16)
    monkeypatch.setattr("groco_cli.evaluation.index.faiss_index._OWN_BYTES", 0)
    five_at_once = 5 * (16 * 24 + 4 * result_bytes(k + 8)) + 8 * 24 * 16 + 5 * 8 * 16
    if "faiss cuda" in name:
        five_at_once += 300_000
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


@pytest.mark.parametrize("name", HALVES)
def test_fp16_is_rounded_before_it_is_multiplied_and_not_after(vectors, name: str):
    bank, asked = vectors(5000, 256), vectors(100, 256, seed=1)
    rounded, queries = (torch.nn.functional.normalize(x, dim=1).half().double() for x in (bank, asked))
    index = opened(name, bank)
    similarities, rows = index.search(asked, 20)
    np.testing.assert_allclose(similarities, (queries @ rounded.T).topk(20).values, atol=2e-6)
    torch.testing.assert_close(similarities.double(), (queries @ rounded.T).gather(1, rows), rtol=0, atol=2e-6)
    assert "fp16" in index.backend


def by_hand(bank: Tensor, asked: Tensor, k: int) -> list[list[int]]:
    """The nearest rows by a sort in Python: the larger cosine first, of equal ones the smaller row."""
    found = []
    for query in cosines(bank, asked).float().tolist():
        found.append(sorted(range(len(bank)), key=lambda row: (-query[row], row))[:k])
    return found


@every_exact
@pytest.mark.parametrize("k", [1, 2, 3, 10, 40, 599])
@pytest.mark.parametrize("copies", [2, 5, 60])
def test_of_equal_ones_those_come_first_and_are_found_whose_rows_are_smaller(vectors, name: str, copies: int, k: int):
    order = torch.randperm(600, generator=torch.Generator().manual_seed(copies))
    bank, asked = vectors(600 // copies).repeat(copies, 1)[order], vectors(23, seed=1)
    similarities, rows = opened(name, bank).search(asked, k)
    assert rows.tolist() == by_hand(bank, asked, k)
    torch.testing.assert_close(similarities.double(), cosines(bank, asked).gather(1, rows), rtol=0, atol=1e-6)


@every_exact
@pytest.mark.parametrize("memory", [10**9, 48 * 10**6])
def test_where_all_are_equal_the_first_are_found(vectors, monkeypatch, name: str, memory: int):
    """As with an encoder that has collapsed: more equal ones than are ever asked for beyond k."""
    monkeypatch.setattr(exact, "_MOST_ROWS", 100)
    bank, asked = vectors(1).expand(700, -1), vectors(9, seed=1)
    bank = torch.cat([bank, -bank[:3], bank[:40]])
    similarities, rows = opened(name, bank, memory).search(asked, 5)
    away = cosines(bank[:1], asked)[:, 0] < 0
    assert away.any()
    assert not away.all()
    for query, found in enumerate(rows.tolist()):
        assert found == ([700, 701, 702, 0, 1] if away[query] else [0, 1, 2, 3, 4])
    torch.testing.assert_close(similarities.double(), cosines(bank, asked).gather(1, rows), rtol=0, atol=1e-6)


@every_exact
def test_a_product_that_a_library_gets_wrong_in_the_last_bits_changes_nothing(vectors, monkeypatch, name: str):
    """Libraries may block equal vectors differently, and sum them in another order."""
    bank, asked = vectors(40).repeat(8, 1), vectors(30, seed=1)
    index = opened(name, bank)
    exactly = index._candidates

    def nearly(queries: Tensor, width: int) -> tuple[Tensor, Tensor]:
        similarities, rows = exactly(queries, len(bank))
        wrong = similarities + 1e-6 * (rows * 7919 % 13 - 6) / 6
        similarities, places = wrong.topk(width, dim=1)
        return similarities, rows.gather(1, places)

    monkeypatch.setattr(index, "_candidates", nearly)
    for k in (1, 3, 8, 20, 50):
        assert index.search(asked, k)[1].tolist() == by_hand(bank, asked, k)


@every_exact
def test_without_nearly_equal_ones_the_bank_is_searched_once(vectors, monkeypatch, name: str):
    bank, asked = vectors(500), vectors(30, seed=1)
    index = opened(name, bank)
    searched: list[int] = []
    once = index._candidates
    monkeypatch.setattr(index, "_candidates", lambda queries, width: [searched.append(width), once(queries, width)][1])
    index.search(asked, 20)
    assert searched == [28]
    index = opened(name, bank.repeat(30, 1))
    again = index._candidates
    monkeypatch.setattr(index, "_candidates", lambda queries, width: [searched.append(width), again(queries, width)][1])
    index.search(asked[:1], 20)
    assert searched == [28, 28, 276]


def test_keys_are_ordered_as_neighbours_are():
    values = torch.tensor([[0.5, -0.5, 0.0, -0.0, 1.0, -1.0, 1e-30, 0.5, -0.5, -1e-30]])
    keys = exact._keys(values, slice(3, 13))
    expected = sorted(range(10), key=lambda place: (-float(values[0, place]), place))
    assert keys.argsort(dim=1, descending=True).tolist() == [expected]
    similarities, rows = exact._of_keys(keys)
    assert torch.equal(similarities, values)
    assert rows.tolist() == [list(range(3, 13))]

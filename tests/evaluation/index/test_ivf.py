import faiss
import pytest
import torch

from groco_cli.errors import UsageError
from groco_cli.evaluation import neighbours
from groco_cli.evaluation.index import IndexOptions, faiss_index, open_index
from groco_cli.evaluation.index.blocks import unit
from groco_cli.evaluation.index.faiss_index import InvertedIndex
from groco_cli.evaluation.index.torch_index import TorchIndex
from groco_cli.evaluation.neighbours import find_neighbours

CPU = torch.device("cpu")


def ivf(lists: int = 0, probes: int = 0) -> IndexOptions:
    return IndexOptions(kind="ivf", lists=lists, probes=probes)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_recall_is_the_share_of_true_neighbours_that_were_found(vectors, leave_one_out: bool):
    bank, queries = vectors(2000), None if leave_one_out else vectors(150, seed=1)
    true = find_neighbours(bank, queries, 10, device=CPU)
    assert true.recall is None
    shares = []
    for probes in (1, 4, 16):
        found = find_neighbours(bank, queries, 10, device=CPU, options=ivf(16, probes))
        sample = torch.arange(1000) * 2 if leave_one_out else torch.arange(150)
        both = [len(set(found.rows[q].tolist()) & set(true.rows[q].tolist())) for q in sample.tolist()]
        assert found.recall == sum(both) / (10 * len(sample))
        assert f"16 lists, {probes} searched, CPU; recall@10 {100 * found.recall:.2f} % ({len(sample):,} queries)" in (
            found.backend
        )
        shares.append(found.recall)
    assert 0.1 < shares[0] < shares[1] < shares[2] == 1.0


def test_searching_all_lists_finds_the_nearest(vectors):
    bank, queries = vectors(500), vectors(40, seed=1)
    true, found = (find_neighbours(bank, queries, 12, device=CPU, options=options) for options in (None, ivf(9, 9)))
    assert torch.equal(found.rows, true.rows)
    assert found.recall == 1.0


@pytest.mark.parametrize("k", [1, 30, 64])
def test_where_the_lists_hold_too_few_more_are_searched(vectors, k: int):
    bank, queries = vectors(64), vectors(20, seed=1)
    found = find_neighbours(bank, queries, k, device=CPU, options=ivf(16, 1))
    assert ((found.rows >= 0) & (found.rows < 64)).all()
    assert all(len(set(row)) == k for row in found.rows.tolist())
    if k == 64:
        assert found.recall == 1.0


def test_the_same_lists_are_made_again(vectors):
    bank, queries = vectors(1000), vectors(50, seed=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (open_index(bank, 5, options=ivf(20, 2)).search(queries, 5) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_lists_made_in_blocks_of_little_memory_are_the_same(vectors, monkeypatch):
    bank, asked = vectors(1000), vectors(50, seed=1)
    whole = InvertedIndex(faiss, bank, lists=10, probes=2).search(asked, 5)
    normalised: list[int] = []
    monkeypatch.setattr(faiss_index, "unit", lambda vectors: [normalised.append(vectors.nbytes), unit(vectors)][1])
    monkeypatch.setattr(faiss_index, "_OWN_BYTES", 0)
    memory = 8 * 24 * 4 * 7  # seven vectors in an eighth of it
    in_blocks = InvertedIndex(faiss, bank, lists=10, probes=2, memory=memory)
    assert max(normalised) == memory // 8
    assert sum(normalised) == (640 + 1000) * 24 * 4, "the sample and the bank, each once"
    torch.testing.assert_close(in_blocks.search(asked, 5), whole, rtol=0, atol=0)


def test_recall_is_measured_within_the_memory(vectors, monkeypatch):
    given: list[int] = []

    def opened(*arguments: object, memory: int, **options: object) -> TorchIndex:
        given.append(memory)
        return TorchIndex(*arguments, memory=memory, **options)

    monkeypatch.setattr(neighbours, "TorchIndex", opened)
    options = IndexOptions(kind="ivf", lists=4, probes=1, memory=70 * 10**6)
    assert find_neighbours(vectors(100), vectors(9, seed=1), 3, device=CPU, options=options).recall
    assert given == [70 * 10**6]


@pytest.mark.parametrize(
    ("count", "lists", "probes"), [(10, "1 lists", "1 searched"), (4000, "102 lists", "6 searched")]
)
def test_lists_and_probes_go_with_the_bank(vectors, count: int, lists: str, probes: str):
    assert f"{lists}, {probes}" in InvertedIndex(faiss, vectors(count, 4)).backend


@pytest.mark.parametrize(
    ("options", "what"),
    [(ivf(11), "--ivf-lists 11 is more than the 10"), (ivf(0, 5), "--ivf-probes 5 is more than the 1 lists")],
)
def test_more_lists_than_there_are_is_told(vectors, options: IndexOptions, what: str):
    with pytest.raises(UsageError, match=what):
        open_index(vectors(10), 1, options=options)

import faiss
import pytest
import torch

from groco_cli.errors import UsageError
from groco_cli.evaluation.index import IndexOptions, open_index
from groco_cli.evaluation.index.faiss_index import InvertedIndex
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

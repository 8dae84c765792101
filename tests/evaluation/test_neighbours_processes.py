"""Two processes that search together: the same neighbours as one alone, each query searched for once."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError
from groco_cli.evaluation import neighbours
from groco_cli.evaluation.index import Index, IndexOptions
from groco_cli.evaluation.neighbours import Neighbours, check_search, find_neighbours, find_together

CPU = torch.device("cpu")
IVF = IndexOptions(kind="ivf", lists=8, probes=1)
SPREAD = IndexOptions(gpus=2)
CASES = {"queries": (23, None), "none": (0, None), "leave one out": (None, None), "ivf": (23, IVF)}


def features(count: int, seed: int = 0) -> Tensor:
    """With four of each."""
    drawn = torch.randn(-(-count // 4), 6, generator=torch.Generator().manual_seed(seed))
    return drawn.repeat(4, 1)[:count]


def case(name: str) -> tuple[Tensor, Tensor | None, IndexOptions | None]:
    queries, options = CASES[name]
    return features(101), None if queries is None else features(queries, seed=1), options


class Watched:
    """An index that says how many queries it was asked for, and another backend in each process."""

    def __init__(self, index: Index, asked: list[int]) -> None:
        self._index, self._asked, self.exact = index, asked, index.exact
        self.backend = f"{index.backend} in process {collectives.rank()}"

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        self._asked.append(len(queries))
        return self._index.search(queries, k)


def fails(*arguments, **options):
    raise GrocoError("cuda:1 has not the memory", "type --device cpu")


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict[str, object] = {}
    for name in CASES:
        bank, queries, options = case(name)
        found[name] = asdict(find_together(bank, queries, 5, device=CPU, options=options))
    opened, asked = neighbours.open_index, []
    neighbours.open_index = lambda *arguments, **options: Watched(opened(*arguments, **options), asked)
    found["backend"] = find_together(*case("queries")[:2], 5, device=CPU).backend
    # As with a bank spread over GPUs, which only the first process may open.
    neighbours.open_index = lambda *arguments, options, **more: Watched(opened(*arguments, **more), asked)
    spread = find_together(*case("queries")[:2], 5, device=CPU, options=SPREAD)
    found |= {"asked": list(asked), "spread": asdict(spread)}
    if rank == 1:
        neighbours.open_index = fails
    try:
        find_together(*case("queries")[:2], 5, device=CPU)
    except GrocoError as error:
        found["error"] = error.message
    checked: list[int] = []
    neighbours.choose_library = lambda *arguments, **options: checked.append(rank)
    check_search(SPREAD, 5, device=CPU)
    check_search(None, 5, device=CPU)
    found["checked"] = checked
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    """What each of two processes came to."""
    folder = tmp_path_factory.mktemp("together")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_same(found: dict, expected: Neighbours) -> None:
    assert torch.equal(found["rows"], expected.rows)
    torch.testing.assert_close(found["similarities"], expected.similarities, rtol=0, atol=1e-6)
    assert found["recall"] == expected.recall


@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_what_one_finds(both, name: str):
    bank, queries, options = case(name)
    expected = find_neighbours(bank, queries, 5, device=CPU, options=options)
    assert (expected.recall is not None) == (name == "ivf")
    for found in both:
        assert_same(found[name], expected)
        assert found[name]["backend"] == expected.backend


def test_each_searches_for_its_part_of_the_queries(both):
    assert [found["asked"][0] for found in both] == [11, 12]


def test_what_served_in_any_of_them_is_told_by_all(both):
    assert both[0]["backend"] == both[1]["backend"]
    assert both[0]["backend"] == "FAISS knn, exact, CPU in process 0; FAISS knn, exact, CPU in process 1"


def test_a_bank_that_is_spread_is_searched_by_the_first_alone(both):
    assert [found["asked"][1:] for found in both] == [[23], []]
    expected = find_neighbours(*case("queries")[:2], 5, device=CPU)
    for found in both:
        assert_same(found["spread"], expected)
    # And the first alone is asked whether it can be; whether each can search on its own device, each.
    assert [found["checked"] for found in both] == [[0, 0], [1]]


def test_what_one_fails_with_is_raised_in_all(both):
    assert [found["error"] for found in both] == ["cuda:1 has not the memory"] * 2

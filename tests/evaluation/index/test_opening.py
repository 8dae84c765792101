"""Which library is chosen, and that it is told; what FAISS's GPU functions are asked for is recorded, not run."""

import sys

import faiss
import pytest
import torch

from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.index import IndexOptions, open_index, opening
from groco_cli.evaluation.index.faiss_gpu import GPU_MOST_NEIGHBOURS
from groco_cli.evaluation.index.torch_index import TorchIndex

OUT_OF_MEMORY = (
    "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory(const faiss::gpu::AllocRequest&) at "
    "/project/faiss/gpu/StandardGpuResources.cpp:530: Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc "
    "fail type FlatData dev 0 space Device stream 0x5 size 99 bytes (cudaMalloc error out of memory [2])\n"
)


@pytest.fixture
def gpus(monkeypatch):
    """As if FAISS saw three GPUs; what they would hold stays on the CPU. What FAISS is asked for is returned.

    The settings are FAISS's own: they know no names but theirs.
    """
    asked = []

    class Resources(faiss.StandardGpuResources):
        def setTempMemory(self, size: int) -> None:  # noqa: N802
            asked.append(("memory", size))
            super().setTempMemory(size)

    def part(resources: Resources, dim: int, config: faiss.GpuIndexFlatConfig) -> faiss.IndexFlatIP:
        index = faiss.IndexFlatIP(dim)
        add, search = index.add, index.search

        def adding(vectors) -> None:
            assert not index.ntotal, "a second add would move the first"
            asked.append(("part", config.device, config.useFloat16, len(vectors)))
            add(vectors)

        def searching(queries, k):
            assert k <= index.ntotal
            if asked[-1] == "fail":
                raise RuntimeError(OUT_OF_MEMORY)
            return search(queries, k)

        monkeypatch.setattr(index, "add", adding)
        monkeypatch.setattr(index, "search", searching)
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 3)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources)
    monkeypatch.setattr(faiss, "GpuIndexFlatIP", part)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, 0) if number < 2 else (6, 1))
    return asked


@pytest.fixture
def torch_device(monkeypatch):
    """The arguments of a torch index on a GPU, without one, and what stands for it."""
    made = {}

    class Stand:
        backend = "torch"

        def search(self, queries, k):
            return "found by torch"

    def make(bank, **arguments):
        made.update(arguments, index=Stand())
        return made["index"]

    monkeypatch.setattr(opening, "TorchIndex", make)
    return made


def test_faiss_serves_on_the_cpu(vectors):
    assert open_index(vectors(3), 1).backend == "FAISS knn, exact, CPU"


def test_without_faiss_torch_finds_the_same_and_says_why(vectors, monkeypatch):
    bank, asked = vectors(90), vectors(20, seed=1)
    theirs = open_index(bank, 7).search(asked, 7)
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = open_index(bank, 7)
    assert index.backend == "torch, exact, fp32, cpu (FAISS is not installed)"
    similarities, rows = index.search(asked, 7)
    assert torch.equal(rows, theirs[1])
    torch.testing.assert_close(similarities, theirs[0], rtol=0, atol=1e-6)


def test_one_gpu_is_given_the_bank_in_parts_that_fit_the_memory(vectors, gpus):
    bank, asked = vectors(9000, 40), vectors(40, 40, seed=1)
    index = open_index(bank, 2, options=IndexOptions(memory=64 * 10**6), device="cuda:1")
    # Three quarters of the memory, and half of these are two tiles of 512 queries by a part, in float32.
    assert gpus == [("memory", 48 * 10**6), ("part", 1, False, 5859), ("part", 1, False, 9000 - 5859)]
    assert 2 * 512 * 5859 * 4 <= 24 * 10**6
    assert index.backend == "FAISS GpuIndexFlatIP, exact, GPU"
    assert torch.equal(index.search(asked, 30)[1], open_index(bank, 30).search(asked, 30)[1])


def test_a_part_on_its_way_fits_the_memory_too(vectors, gpus):
    open_index(vectors(4500, 2048), 2, options=IndexOptions(memory=64 * 10**6, half=True), device="cuda:1")
    assert gpus == [("memory", 48 * 10**6), ("part", 1, True, 3906), ("part", 1, True, 594)]
    assert 3906 * 2048 * 6 <= 48 * 10**6  # float32, and fp16 beside it


@pytest.mark.parametrize("count", [1, 2, 9, 12_000])
def test_several_gpus_share_the_bank(vectors, gpus, count: int):
    bank, asked = vectors(count, 40), vectors(4, 40, seed=1)
    index = open_index(bank, 2, options=IndexOptions(gpus=2, memory=64 * 10**6), device="cuda:0")
    first = [part[3] for part in gpus if part[:2] == ("part", 0)]
    second = [part[3] for part in gpus if part[:2] == ("part", 1)]
    assert (sum(first), sum(second)) == (-(-count // 2), count // 2)
    assert index.backend == "FAISS GpuIndexFlatIP, exact, spread over 2 GPUs"
    k = min(count, 11)
    assert torch.equal(index.search(asked, k)[1], open_index(bank, k).search(asked, k)[1])


def test_no_more_room_is_set_apart_than_faiss_takes(vectors, gpus):
    open_index(vectors(9), 2, options=IndexOptions(memory=10**11), device="cuda:1")
    assert gpus[0] == ("memory", 3 * 2**29 * 3 // 4)


@pytest.mark.parametrize(
    ("device", "k", "why"),
    [
        ("cuda:3", 1, "FAISS sees 3 GPUs"),
        ("cuda:2", 1, "FAISS wants a GPU of compute capability 7.0"),
        ("cuda:0", GPU_MOST_NEIGHBOURS - 7, "FAISS finds 2,040 neighbours on a GPU"),
    ],
)
def test_where_faiss_cannot_use_the_gpu_torch_does_and_says_why(vectors, gpus, torch_device, device, k, why):
    assert open_index(vectors(9), k, options=IndexOptions(half=True), device=device) is torch_device["index"]
    assert (torch_device["device"], torch_device["half"]) == (torch.device(device), True)
    assert why in torch_device["why"]
    assert not gpus


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OUT_OF_MEMORY, "FAISS ran out of the GPU's memory"),
        ("Error in f() at a.cu:5: Error: 'a < b' failed: Invalid\nGPU", "FAISS failed: Invalid GPU"),
        ("something", "FAISS failed: something"),
    ],
)
def test_where_faiss_fails_to_open_torch_serves_and_says_why(vectors, gpus, torch_device, monkeypatch, error, why):
    def fail(*arguments):
        raise RuntimeError(error)

    monkeypatch.setattr(faiss, "GpuIndexFlatIP", fail)
    index = open_index(vectors(9), 1, device="cuda:1")
    assert torch_device["why"] == why
    assert index.backend == "torch"
    assert index.search(vectors(2), 1) == "found by torch"


def test_where_faiss_fails_in_a_search_torch_goes_on_and_says_why(vectors, gpus, torch_device):
    index = open_index(vectors(9), 1, device="cuda:1")
    assert torch.is_tensor(index.search(vectors(2), 1)[1])
    assert "GpuIndexFlatIP" in index.backend
    gpus.append("fail")
    assert index.search(vectors(2), 1) == "found by torch"
    assert (index.backend, torch_device["why"]) == ("torch", "FAISS ran out of the GPU's memory")
    assert index.search(vectors(2), 1) == "found by torch"


def test_on_several_gpus_nothing_else_can_serve(vectors, gpus):
    index = open_index(vectors(9), 1, options=IndexOptions(gpus=2), device="cuda:0")
    gpus.append("fail")
    with pytest.raises(GrocoError, match="--search-gpus 2: FAISS ran out of the GPU's memory") as caught:
        index.search(vectors(2), 1)
    assert "--half" in caught.value.hint


@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_without_the_memory_for_torch_is_told(vectors, monkeypatch, half: bool):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(TorchIndex, "_copied", full)
    with pytest.raises(GrocoError, match="cuda:1 has not the memory to search a bank of 9 x 24") as caught:
        TorchIndex(vectors(9), device=torch.device("cuda:1"), half=half)
    assert ("--half" in caught.value.hint) != half
    assert "--device cpu" in caught.value.hint
    index = TorchIndex(vectors(9), device=torch.device("cpu"))
    monkeypatch.setattr(torch, "mm", full)
    with pytest.raises(GrocoError, match="cpu has not the memory"):
        index.search(vectors(2), 1)


def test_without_faiss_torch_takes_the_gpu(vectors, without_faiss, torch_device):
    assert open_index(vectors(9), 1, device="cuda").backend == "torch"
    assert torch_device["why"] == "FAISS is not installed"


@pytest.mark.parametrize(
    ("options", "device", "what"),
    [
        (IndexOptions(half=True), "cpu", "are for CUDA GPUs, not cpu"),
        (IndexOptions(gpus=2), "cpu", "are for CUDA GPUs, not cpu"),
        (IndexOptions(gpus=3), "cuda:1", "--search-gpus 3 from cuda:1 on: FAISS sees 3 GPUs"),
    ],
)
def test_what_a_machine_cannot_do_is_told(vectors, gpus, options: IndexOptions, device: str, what: str):
    with pytest.raises(UsageError, match=what) as caught:
        open_index(vectors(9), 1, options=options, device=device)
    assert caught.value.hint


def test_ivf_is_never_served_by_anything_else(vectors, without_faiss):
    with pytest.raises(UsageError, match="--index ivf: FAISS is not installed"):
        open_index(vectors(9), 1, options=IndexOptions(kind="ivf"))


@pytest.mark.parametrize(("above", "exact"), [(0, False), (99, False), (100, True)])
def test_small_banks_are_searched_exactly_where_that_was_asked_for(vectors, above: int, exact: bool):
    index = open_index(vectors(100), 1, options=IndexOptions(kind="ivf", ivf_above=above))
    assert index.exact == exact
    assert ("exact" in index.backend) == exact

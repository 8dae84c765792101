"""Which library is chosen, and that it is told; what FAISS's GPU functions are asked for is recorded, not run."""

import sys

import faiss
import pytest
import torch

from groco_cli.errors import UsageError
from groco_cli.evaluation.index import IndexOptions, open_index, opening
from groco_cli.evaluation.index.faiss_index import GPU_MOST_NEIGHBOURS


@pytest.fixture
def gpus(monkeypatch):
    """As if FAISS saw three GPUs; their indices stay on the CPU. What is asked for is returned."""
    asked = []

    class Resources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802
            asked.append(("memory", size))

    def to_gpus(resources, index, cloning, numbers):
        asked.append(("gpus", numbers, len(resources), cloning.shard, cloning.useFloat16))
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 3)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", lambda: type("Cloning", (), {})(), raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu_multiple_py", to_gpus, raising=False)
    return asked


@pytest.fixture
def torch_device(monkeypatch):
    """The arguments of a torch index on a GPU, without one."""
    made = {}

    def make(bank, **arguments):
        made.update(arguments)
        return "torch"

    monkeypatch.setattr(opening, "TorchIndex", make)
    return made


def test_faiss_serves_on_the_cpu(vectors):
    assert open_index(vectors(3), 1).backend == "FAISS IndexFlatIP, exact, CPU"


def test_without_faiss_torch_finds_the_same_and_says_why(vectors, monkeypatch):
    bank, asked = vectors(90), vectors(20, seed=1)
    theirs = open_index(bank, 7).search(asked, 7)
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = open_index(bank, 7)
    assert index.backend == "torch, exact, fp32, cpu (FAISS is not installed)"
    similarities, rows = index.search(asked, 7)
    assert torch.equal(rows, theirs[1])
    torch.testing.assert_close(similarities, theirs[0], rtol=0, atol=1e-6)


def test_one_gpu_is_given_the_whole_bank(vectors, gpus):
    index = open_index(vectors(9), 2, options=IndexOptions(memory=10**8), device="cuda:1")
    assert gpus == [("memory", 10**8), ("gpus", [1], 1, False, False)]
    assert index.backend == "FAISS IndexFlatIP, exact, GPU"
    assert index.search(vectors(4), 2)[1].shape == (4, 2)


def test_several_gpus_share_the_bank(vectors, gpus):
    index = open_index(vectors(9), 2, options=IndexOptions(gpus=2, half=True), device="cuda:1")
    assert gpus[-1] == ("gpus", [1, 2], 2, True, True)
    assert index.backend == "FAISS IndexFlatIP, exact, fp16, sharded over 2 GPUs"


@pytest.mark.parametrize(
    ("device", "k", "why"),
    [("cuda:3", 1, "FAISS sees 3 GPUs"), ("cuda:0", GPU_MOST_NEIGHBOURS + 1, "FAISS finds 2,048 neighbours on a GPU")],
)
def test_where_faiss_cannot_use_the_gpu_torch_does_and_says_why(vectors, gpus, torch_device, device, k, why):
    assert open_index(vectors(9), k, options=IndexOptions(half=True), device=device) == "torch"
    assert (torch_device["device"], torch_device["half"]) == (torch.device(device), True)
    assert why in torch_device["why"]
    assert not gpus


def test_without_faiss_torch_takes_the_gpu(vectors, without_faiss, torch_device):
    assert open_index(vectors(9), 1, device="cuda") == "torch"
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

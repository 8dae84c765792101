"""Search with FAISS: all of the bank, on the CPU or on GPUs, or some lists of it (IVF) on the CPU."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from groco_cli.errors import UsageError
from groco_cli.evaluation.index.blocks import blocks, feature_blocks, joined, queries_at_once, result_bytes, unit

GPU_MOST_NEIGHBOURS = 2048  # of FAISS's GPU search
_OWN_BYTES = 32 * 2**20  # FAISS's tile on the CPU: 4,096 queries by 1,024 of the bank, and room
_POINTS = 39, 64  # of the bank, for each list: fewer make bad ones, FAISS warns; more make training slow


class FlatIndex:
    """A bank, searched exhaustively.

    Args:
        faiss: The module.
        bank: Features [n, D], not normalised; FAISS keeps a copy of its own.
        gpus: Numbers of the GPUs that hold it, a part each; none for the CPU.
        half: Keep it in fp16 there.
        memory: What a search may take beside bank, queries and results, bytes.

    Attributes:
        backend: What serves, for people: "FAISS IndexFlatIP, exact, CPU".
    """

    exact = True

    def __init__(
        self, faiss: Any, bank: Tensor, *, gpus: range = range(0), half: bool = False, memory: int = 10**9
    ) -> None:
        self._memory = memory
        self._index = _flat(faiss, bank)
        place = "CPU"
        if gpus:
            # FAISS computes on a GPU in as much room as it is given at first.
            self._resources = [faiss.StandardGpuResources() for _ in gpus]
            for resources in self._resources:
                resources.setTempMemory(memory)
            cloning = faiss.GpuMultipleClonerOptions()
            cloning.shard = len(gpus) > 1
            cloning.useFloat16 = half
            self._index = faiss.index_cpu_to_gpu_multiple_py(self._resources, self._index, cloning, list(gpus))
            place = "fp16, " * half + (f"sharded over {len(gpus)} GPUs" if len(gpus) > 1 else "GPU")
        self.backend = f"FAISS IndexFlatIP, exact, {place}"

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `TorchIndex.search`."""
        return _in_blocks(self._index.search, queries, k, self._memory)


class InvertedIndex:
    """A bank in lists, each of what is nearest to one of its k-means centres; a query sees the nearest lists only.

    Where they hold fewer than k, twice as many are searched, and so on.

    Args:
        faiss: The module.
        bank: Features [n, D], not normalised; FAISS keeps a copy of its own.
        lists: Number of lists; 0 for 4 √n, or fewer where that leaves less than 39 of the bank a list.
        probes: How many lists are searched for each query; 0 for one in 16.
        memory: What a search may take beside bank, queries and results, bytes.

    Attributes:
        backend: What serves, for people: "FAISS IndexIVFFlat, 64 lists, 4 searched, CPU".

    Raises:
        UsageError: For more lists than the bank has images, or more searched than there are.
    """

    exact = False

    def __init__(self, faiss: Any, bank: Tensor, *, lists: int = 0, probes: int = 0, memory: int = 10**9) -> None:
        self._faiss, self._memory = faiss, memory
        count, dim = bank.shape
        self._lists = lists or max(1, min(round(4 * math.sqrt(count)), count // _POINTS[0]))
        if self._lists > count:
            raise UsageError(f"--ivf-lists {self._lists} is more than the {count} images of the bank", "type fewer")
        self._probes = probes or max(1, self._lists // 16)
        if self._probes > self._lists:
            raise UsageError(
                f"--ivf-probes {self._probes} is more than the {self._lists} lists", f"type {self._lists} or less"
            )
        self._centres = faiss.IndexFlatIP(dim)
        self._index = faiss.IndexIVFFlat(self._centres, dim, self._lists, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.seed, self._index.cp.min_points_per_centroid = 0, 1
        sample = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: _POINTS[1] * self._lists]
        self._index.train(unit(bank[sample]).numpy())
        for block in feature_blocks(bank):
            self._index.add(unit(bank[block]).numpy())
        self.backend = f"FAISS IndexIVFFlat, {self._lists:,} lists, {self._probes:,} searched, CPU"

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `TorchIndex.search`, but not always the nearest of all."""
        return _in_blocks(self._searched, queries, k, self._memory)

    def _searched(self, queries: Any, k: int, probes: int = 0) -> tuple[Any, Any]:
        probes = min(probes or self._probes, self._lists)
        similarities, rows = self._index.search(queries, k, params=self._faiss.SearchParametersIVF(nprobe=probes))
        lacking = (rows < 0).any(axis=1)
        if lacking.any() and probes < self._lists:
            similarities[lacking], rows[lacking] = self._searched(queries[lacking], k, 2 * probes)
        return similarities, rows


def _flat(faiss: Any, bank: Tensor) -> Any:
    """A flat index, filled in place: FAISS's `add` wants the whole bank normalised before, or grows by doubling."""
    flat = faiss.IndexFlatIP(bank.shape[1])
    flat.codes.resize(bank.numel() * 4)
    flat.ntotal = len(bank)
    rows = torch.from_numpy(faiss.rev_swig_ptr(flat.get_xb(), bank.numel())).view(bank.shape)
    for block in feature_blocks(bank):
        rows[block] = unit(bank[block])
    return flat


def _in_blocks(
    search: Callable[[Any, int], tuple[Any, Any]], queries: Tensor, k: int, memory: int
) -> tuple[Tensor, Tensor]:
    """Search block after block of queries, each normalised as it is its turn."""
    size = queries_at_once(memory, fixed=_OWN_BYTES, each=8 * queries.shape[1] + result_bytes(k))
    parts = []
    for block in blocks(len(queries), size):
        similarities, rows = search(unit(queries[block]).numpy(), k)
        parts.append((torch.from_numpy(similarities), torch.from_numpy(rows)))
    return joined(parts, k)

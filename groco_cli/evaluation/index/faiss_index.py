"""Search with FAISS on the CPU: all of a bank, or some lists of it (IVF)."""

import math
from typing import Any

import torch
from torch import Tensor

from groco_cli.errors import UsageError
from groco_cli.evaluation.index.blocks import (
    blocks,
    feature_blocks,
    in_order,
    larger,
    queries_at_once,
    result_bytes,
    unit,
)
from groco_cli.evaluation.index.exact import ExactIndex

_OWN_BYTES = 32 * 2**20  # FAISS's tile on the CPU: 4,096 queries by 1,024 of the bank, and room
_POINTS = 39, 64  # of the bank, for each list: fewer make bad ones, FAISS warns; more make training slow


class FlatIndex(ExactIndex):
    """A bank, searched exhaustively.

    `faiss.knn` searches what it is shown with the kernels of `IndexFlatIP`, and keeps none of it: the bank is shown to
    it block by block, each normalised in passing.

    Args:
        faiss: The module.
        bank: Features [n, D], not normalised; kept as it is.
        memory: What a search may take beside bank, queries and results, bytes.

    Attributes:
        backend: What serves, for people: "FAISS knn, exact, CPU".
    """

    def __init__(self, faiss: Any, bank: Tensor, *, memory: int = 10**9) -> None:
        super().__init__(bank, memory=memory)
        self._faiss = faiss
        self.backend = "FAISS knn, exact, CPU"

    def _bank_blocks(self) -> list[slice]:
        return feature_blocks(self._bank, self._memory // 8)

    def _queries_at_once(self, width: int) -> int:
        each = 12 * self._bank.shape[1] + 2 * result_bytes(width)
        # A quarter of the memory is the block's, as it is and normalised.
        return queries_at_once(self._memory, fixed=_OWN_BYTES * 4 // 3, each=each * 4 // 3)

    def _candidates(self, queries: Tensor, width: int) -> tuple[Tensor, Tensor]:
        asked, inner = unit(queries).numpy(), self._faiss.METRIC_INNER_PRODUCT
        found = None
        for block in self._bank_blocks():
            most = min(width, block.stop - block.start)
            similarities, rows = self._faiss.knn(asked, unit(self._bank[block]).numpy(), most, metric=inner)
            found = larger(found, (torch.from_numpy(similarities), torch.from_numpy(rows) + block.start), width)
        assert found is not None
        return found


class InvertedIndex:
    """A bank in lists, each of what is nearest to one of its k-means centres; a query sees the nearest lists only.

    Where they hold fewer than k, twice as many are searched, and so on.

    Args:
        faiss: The module.
        bank: Features [n, D], not normalised; FAISS keeps a copy of its own.
        lists: Number of lists; 0 for 4 √n, or fewer where that leaves less than 39 of the bank a list.
        probes: How many lists are searched for each query; 0 for one in 16.
        memory: What a search may take beside bank, queries and results, bytes. To make the lists takes 64 vectors a
            list more.

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
        self._index.train(self._sample(bank).numpy())
        for block in feature_blocks(bank, memory // 8):
            self._index.add(unit(bank[block]).numpy())
        self.backend = f"FAISS IndexIVFFlat, {self._lists:,} lists, {self._probes:,} searched, CPU"

    def _sample(self, bank: Tensor) -> Tensor:
        """What the centres are found by: unit vectors, float32 [up to 64 a list, D], made block by block."""
        rows = torch.randperm(len(bank), generator=torch.Generator().manual_seed(0))[: _POINTS[1] * self._lists]
        sample = torch.empty(len(rows), bank.shape[1])
        for block in feature_blocks(sample, self._memory // 8):
            sample[block] = unit(bank[rows[block]])
        return sample

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `ExactIndex.search`, but not always the nearest of all."""
        size = queries_at_once(self._memory, fixed=_OWN_BYTES, each=8 * queries.shape[1] + result_bytes(k))
        parts = []
        for block in blocks(len(queries), size):
            similarities, rows = self._searched(unit(queries[block]).numpy(), k)
            parts.append(in_order(torch.from_numpy(similarities), torch.from_numpy(rows)))
        none = torch.empty(0, k), torch.empty(0, k, dtype=torch.int64)
        similarities, rows = (torch.cat(some) for some in zip(none, *parts, strict=True))
        return similarities, rows

    def _searched(self, queries: Any, k: int, probes: int = 0) -> tuple[Any, Any]:
        probes = min(probes or self._probes, self._lists)
        similarities, rows = self._index.search(queries, k, params=self._faiss.SearchParametersIVF(nprobe=probes))
        lacking = (rows < 0).any(axis=1)
        if lacking.any() and probes < self._lists:
            similarities[lacking], rows[lacking] = self._searched(queries[lacking], k, 2 * probes)
        return similarities, rows

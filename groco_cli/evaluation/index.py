"""The one place that speaks FAISS: exact nearest neighbours by inner product."""

from typing import Any

import faiss
import torch
from torch import Tensor

_GPU_MOST_NEIGHBOURS = 2048  # of FAISS's GPU search


class ExactIndex:
    """A bank of unit vectors, searched exhaustively.

    Args:
        bank: float32 [n, D].
        device: A CUDA device is used where FAISS sees it; else the search runs on the CPU.

    Attributes:
        backend: What serves, for people: "FAISS IndexFlatIP, exact, CPU".
    """

    def __init__(self, bank: Tensor, device: torch.device) -> None:
        self._flat = faiss.IndexFlatIP(bank.shape[1])
        self._flat.add(bank.numpy())
        self._searched: Any = self._flat
        on_gpu = device.type == "cuda" and faiss.get_num_gpus() > (device.index or 0)
        if on_gpu:
            self._resources = faiss.StandardGpuResources()
            self._searched = faiss.index_cpu_to_gpu(self._resources, device.index or 0, self._flat)
        self.backend = f"FAISS IndexFlatIP, exact, {'GPU' if on_gpu else 'CPU'}"

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest of the bank.

        Args:
            queries: float32 [q, D].
            k: At most the size of the bank.

        Returns:
            Inner products, descending, float32 [q, k], and rows of the bank, int64 [q, k].
        """
        index = self._searched if k <= _GPU_MOST_NEIGHBOURS else self._flat
        similarities, rows = index.search(queries.numpy(), k)
        return torch.from_numpy(similarities), torch.from_numpy(rows)

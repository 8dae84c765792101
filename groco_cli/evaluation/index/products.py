"""All inner products of some queries with a bank, as a ranking of the whole bank wants them.

FAISS finds at most 2,048 neighbours on a GPU. So it is shown no more of the bank at once, and asked for as many as
there are.
"""

from typing import Any

import torch
from torch import Tensor

from groco_cli import devices
from groco_cli.evaluation.index.blocks import blocks
from groco_cli.evaluation.index.faiss_gpu import GPU_MOST_NEIGHBOURS
from groco_cli.evaluation.index.falling_back import failure
from groco_cli.evaluation.index.opening import choose_library
from groco_cli.evaluation.index.options import IndexOptions


class Products:
    """Multiplies vectors of a bank with queries: by FAISS where it serves, else, saying why, by torch.

    Args:
        device: Where; a CUDA GPU, or else the CPU.

    Attributes:
        backend: What serves, for people: "FAISS knn, exact, CPU".
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else torch.device("cpu")
        self._faiss, why = choose_library(IndexOptions(), 1, device=self._device)
        self._resources: Any = None
        if not self._faiss:
            self._take_torch(why)
        elif self._device.type == "cuda":
            self._resources = self._faiss.StandardGpuResources()
            self.backend = "FAISS knn_gpu, exact, GPU"
        else:
            self.backend = "FAISS knn, exact, CPU"

    def __call__(self, bank: Tensor, queries: Tensor) -> Tensor:
        """Every inner product.

        Args:
            bank: Vectors [n, D], float32 on the CPU, as they are to be multiplied.
            queries: Likewise, [q, D].

        Returns:
            float32 [n, q] on the CPU.
        """
        parts = [self._of_part(bank[block], queries) for block in blocks(len(bank), GPU_MOST_NEIGHBOURS)]
        return torch.cat([torch.empty(0, len(queries)), *parts])

    def _of_part(self, part: Tensor, queries: Tensor) -> Tensor:
        if self._faiss:
            try:
                return self._by_faiss(part, queries)
            except RuntimeError as error:
                if self._resources is None:
                    raise
                why = failure(error)
            self._take_torch(why)
        with devices.whole_float32():
            return (part.to(self._device) @ queries.to(self._device).T).cpu()

    def _by_faiss(self, part: Tensor, queries: Tensor) -> Tensor:
        shown, asked, metric = part.numpy(), queries.numpy(), self._faiss.METRIC_INNER_PRODUCT
        if self._resources is None:
            found, rows = self._faiss.knn(asked, shown, len(part), metric=metric)
        else:
            found, rows = self._faiss.knn_gpu(
                self._resources, asked, shown, len(part), metric=metric, device=self._device.index or 0
            )
        products = torch.empty(len(queries), len(part))
        return products.scatter_(1, torch.from_numpy(rows), torch.from_numpy(found)).T

    def _take_torch(self, why: str) -> None:
        self._faiss = self._resources = None
        self.backend = f"torch, exact, fp32, {self._device.type} ({why})"

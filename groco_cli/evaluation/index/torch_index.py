"""Exact search with torch alone, on any device: a matrix product and the k largest, tile by tile."""

import torch
from torch import Tensor

from groco_cli import devices
from groco_cli.evaluation.index.blocks import blocks, feature_blocks, joined, queries_at_once, result_bytes, unit

_MOST_ROWS = 4096  # of the bank, in a tile
_MOST_QUERIES_ON_CPU = 2048  # a larger tile leaves the caches between product and selection


class TorchIndex:
    """A bank, searched exhaustively.

    Products are float32, or of fp16 values and summed in float32 (`half`): never TF32 or bf16, whatever torch is told.

    Args:
        bank: Features [n, D], not normalised. On the CPU it is kept as it is, and normalised in passing: no copy.
        device: Where it is copied to and searched.
        half: Keep it in fp16; for CUDA only.
        memory: What a search may take beside bank, queries and results, bytes.
        why: Why it is not FAISS that serves.

    Attributes:
        backend: What serves, for people: "torch, exact, fp32, cpu (FAISS is not installed)".
    """

    exact = True

    def __init__(
        self, bank: Tensor, *, device: torch.device, half: bool = False, memory: int = 10**9, why: str = ""
    ) -> None:
        self._device, self._memory = device, memory
        self._dtype = torch.float16 if half else torch.float32
        self._copied = device.type != "cpu"
        self._bank = self._copy(bank) if self._copied else bank
        self.backend = f"torch, exact, {'fp16' if half else 'fp32'}, {device}" + (f" ({why})" if why else "")

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest of the bank to each query.

        Args:
            queries: Features [q, D], not normalised.
            k: At most the size of the bank.

        Returns:
            Cosines, nearest first, float32 [q, k], and rows of the bank, int64 [q, k], on the CPU.

        Raises:
            UsageError: If one query does not fit the memory.
        """
        dim = queries.shape[1]
        # A row of the bank as float32 and normalised: a quarter of the memory. A query likewise; its part of the tile,
        # and as much for topk.
        rows = min(_MOST_ROWS, max(1, self._memory // (4 * 8 * dim)), len(self._bank))
        size = queries_at_once(self._memory, fixed=8 * dim * rows, each=8 * dim + 8 * rows + result_bytes(k))
        if not self._copied:
            size = min(size, _MOST_QUERIES_ON_CPU)
        size = max(1, min(size, len(queries)))
        tile = torch.empty(size * rows, device=self._device)
        with torch.no_grad(), devices.whole_float32():
            found = [self._nearest(queries[block], k, rows, tile) for block in blocks(len(queries), size)]
        return joined(found, k)

    def _nearest(self, queries: Tensor, k: int, rows_at_once: int, tile: Tensor) -> tuple[Tensor, Tensor]:
        asked = self._ready(queries)
        similarities = torch.empty(len(asked), 0, device=self._device)
        rows = torch.empty(len(asked), 0, dtype=torch.int64, device=self._device)
        for block in blocks(len(self._bank), rows_at_once):
            of_bank = self._bank[block] if self._copied else self._ready(self._bank[block])
            products = _products(asked, of_bank, tile[: len(asked) * len(of_bank)].view(len(asked), -1))
            largest, places = products.topk(min(k, len(of_bank)), dim=1, sorted=False)
            similarities = torch.cat([similarities, largest], dim=1)
            rows = torch.cat([rows, places + block.start], dim=1)
            if rows.shape[1] > k:
                similarities, places = similarities.topk(k, dim=1, sorted=False)
                rows = rows.gather(1, places)
        return similarities.cpu(), rows.cpu()

    def _ready(self, features: Tensor) -> Tensor:
        return unit(features.to(self._device)).to(self._dtype)

    def _copy(self, bank: Tensor) -> Tensor:
        copy = torch.empty(bank.shape, dtype=self._dtype, device=self._device)
        for block in feature_blocks(bank):
            copy[block] = self._ready(bank[block])
        return copy


def _products(queries: Tensor, bank: Tensor, out: Tensor) -> Tensor:
    """Inner products, float32 [q, n]."""
    if queries.dtype == torch.float16:  # by itself, torch rounds what it summed in float32 to fp16 again
        return torch.mm(queries, bank.T, out_dtype=torch.float32, out=out)
    return torch.mm(queries, bank.T, out=out)

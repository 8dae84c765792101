"""Exact search with torch alone, on any device: a matrix product and the largest of it, tile by tile."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from groco_cli import devices
from groco_cli.errors import GrocoError
from groco_cli.evaluation.index.blocks import blocks, feature_blocks, larger, queries_at_once, result_bytes, unit
from groco_cli.evaluation.index.exact import ExactIndex

_MOST_ROWS = 4096  # of the bank, in a tile
_MOST_QUERIES_ON_CPU = 2048  # a larger tile leaves the caches between product and selection


class TorchIndex(ExactIndex):
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

    Raises:
        GrocoError: If the device has not the memory for the bank, here, or for the search, there.
    """

    def __init__(
        self, bank: Tensor, *, device: torch.device, half: bool = False, memory: int = 10**9, why: str = ""
    ) -> None:
        super().__init__(bank, memory=memory, half=half, device=device)
        self._device = device
        self._dtype = torch.float16 if half else torch.float32
        with self._shortage_told():
            self._copy = self._copied() if device.type != "cpu" else None
        self.backend = f"torch, exact, {'fp16' if half else 'fp32'}, {device.type}" + (f" ({why})" if why else "")

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `ExactIndex.search`."""
        with torch.no_grad(), devices.whole_float32(), self._shortage_told():
            return super().search(queries, k)

    def _rows_at_once(self) -> int:
        # A row of the bank as float32 and normalised: a quarter of the memory.
        return min(_MOST_ROWS, max(1, self._memory // (4 * 8 * self._bank.shape[1] or 1)), len(self._bank))

    def _queries_at_once(self, width: int) -> int:
        # A query as it is, as float32 and normalised; its part of the tile, and as much for topk.
        dim, rows = self._bank.shape[1], self._rows_at_once()
        size = queries_at_once(self._memory, fixed=8 * dim * rows, each=12 * dim + 8 * rows + result_bytes(width))
        return size if self._copy is not None else min(size, _MOST_QUERIES_ON_CPU)

    def _candidates(self, queries: Tensor, width: int) -> tuple[Tensor, Tensor]:
        asked, at_once = self._on_device(queries), self._rows_at_once()
        tile = torch.empty(len(asked) * at_once, device=self._device)
        found = None
        for block in blocks(len(self._bank), at_once):
            of_bank = self._on_device(self._bank[block]) if self._copy is None else self._copy[block]
            products = _products(asked, of_bank, tile[: len(asked) * len(of_bank)].view(len(asked), -1))
            largest, places = products.topk(min(width, len(of_bank)), dim=1, sorted=False)
            found = larger(found, (largest, places + block.start), width)
        assert found is not None
        return found[0].cpu(), found[1].cpu()

    def _on_device(self, features: Tensor) -> Tensor:
        return unit(features.to(self._device)).to(self._dtype)

    def _copied(self) -> Tensor:
        copy = torch.empty(self._bank.shape, dtype=self._dtype, device=self._device)
        for block in feature_blocks(self._bank, self._memory // 8):
            copy[block] = self._on_device(self._bank[block])
        return copy

    @contextmanager
    def _shortage_told(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            size = f"{len(self._bank):,} x {self._bank.shape[1]:,}"
            less = "a smaller --search-memory" if self._half else "--half or a smaller --search-memory"
            raise GrocoError(
                f"{self._device} has not the memory to search a bank of {size}",
                f"type --device cpu; groco knn also takes {less}",
            ) from error


def _products(queries: Tensor, bank: Tensor, out: Tensor) -> Tensor:
    """Inner products, float32 [q, n]."""
    if queries.dtype == torch.float16:  # by itself, torch rounds what it summed in float32 to fp16 again
        return torch.mm(queries, bank.T, out_dtype=torch.float32, out=out)
    return torch.mm(queries, bank.T, out=out)

"""Search with FAISS on GPUs: all of a bank, which lies there in parts.

FAISS's `GpuIndexFlat` allocates what one `add` brings, moves all of it for another, and tiles a search by its own
measure: 512 queries by up to 262,144 vectors, or 524,288 in fp16, in two buffers of float32, 1 or 2 GiB, whatever
memory it is given (faiss/gpu: GpuIndexFlat.cu, impl/FlatIndex.cu, `chooseTileSize` in impl/DistanceUtils.cuh; 1.15).
A part that is added once, and smaller than that tile, takes its own size and no more, and bounds the tile.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from groco_cli.evaluation.index.blocks import blocks, larger, queries_at_once, result_bytes, unit
from groco_cli.evaluation.index.exact import ExactIndex

GPU_MOST_NEIGHBOURS = 2048  # of FAISS's GPU search
LEAST_CAPABILITY = 7, 0  # of a GPU, for the kernels in FAISS's wheels; on an older one FAISS ends the process
_MOST_BYTES = 3 * 2**29  # of FAISS's room for a search; it takes no more
_PAGE_BYTES = 2**28  # queries of so much and more pass through pinned memory, which is not set apart for it


class GpuFlatIndex(ExactIndex):
    """A bank on one GPU, or spread over several, searched exhaustively.

    Args:
        faiss: The module.
        bank: Features [n, D], not normalised; what the GPUs are given is normalised part by part.
        gpus: Numbers of the GPUs.
        half: Keep it in fp16.
        memory: What a search may take of each GPU beside the bank, and of the host beside queries and results, bytes;
            of more than 1.5 GiB no use is made.

    Attributes:
        backend: What serves, for people: "FAISS GpuIndexFlatIP, exact, fp16, GPU".

    Raises:
        RuntimeError: From FAISS, if a GPU has not the memory, here, or for the search, there.
    """

    def __init__(self, faiss: Any, bank: Tensor, *, gpus: range, half: bool = False, memory: int = 10**9) -> None:
        memory = min(memory, _MOST_BYTES)
        device = torch.device("cuda", gpus.start)
        super().__init__(bank, memory=memory, half=half, most=GPU_MOST_NEIGHBOURS, device=device)
        count, dim = bank.shape
        self._room = memory * 3 // 4  # the rest is for what `ExactIndex` does after
        self._tile_queries = 1024 if dim <= 32 else 512  # as FAISS has it
        # Half of the room is the two buffers of the tile. A part on its way is float32, and on the GPU fp16 as well.
        self._part = max(1, self._room // max(2 * 2 * 4 * self._tile_queries, 6 * dim))
        shares = blocks(count, -(-count // len(gpus)))
        self._shares = [self._on_gpu(faiss, gpu, share) for gpu, share in zip(gpus, shares, strict=False)]
        place = f"spread over {len(gpus)} GPUs" if len(gpus) > 1 else "GPU"
        self.backend = f"FAISS GpuIndexFlatIP, exact, {'fp16, ' * half}{place}"

    def _on_gpu(self, faiss: Any, gpu: int, share: slice) -> list[tuple[int, Any]]:
        """The parts of one GPU's share, each with its first row."""
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(self._room)
        resources.setPinnedMemory(0)
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = gpu, self._half
        parts = []
        for block in blocks(share.stop - share.start, self._part):
            start, stop = share.start + block.start, share.start + block.stop
            part = faiss.GpuIndexFlatIP(resources, self._bank.shape[1], config)
            part.add(unit(self._bank[start:stop]).numpy())
            parts.append((start, part))
        return parts

    def _queries_at_once(self, width: int) -> int:
        dim = self._bank.shape[1]
        tile = 8 * self._tile_queries * min(self._part, len(self._bank)) + 24 * self._tile_queries * width
        each = 12 * dim + 2 * result_bytes(width)
        size = queries_at_once(self._memory, fixed=tile * 4 // 3, each=each * 4 // 3)
        return max(1, min(size, (_PAGE_BYTES - 1) // (4 * dim)))

    def _candidates(self, queries: Tensor, width: int) -> tuple[Tensor, Tensor]:
        asked = unit(queries).numpy()

        def of_share(parts: list[tuple[int, Any]]) -> tuple[Tensor, Tensor]:
            found = None
            for start, part in parts:
                similarities, rows = part.search(asked, min(width, part.ntotal))
                found = larger(found, (torch.from_numpy(similarities), torch.from_numpy(rows) + start), width)
            assert found is not None
            return found

        with ThreadPoolExecutor(len(self._shares)) as pool:  # while it searches, FAISS lets other threads run
            first, *others = pool.map(of_share, self._shares)
        for other in others:
            first = larger(first, other, width)
        return first

"""Banks and queries in blocks, so that a search keeps to its memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.errors import UsageError

_BLOCK_BYTES = 64 * 2**20  # of features in float32
_SHORT = 1e-12  # a vector that is shorter is not divided by its length as float32 has it


def blocks(total: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size`."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def feature_blocks(features: Tensor, most: int | None = None) -> list[slice]:
    """Consecutive slices of features [n, D], few enough at once that copies of them hardly count.

    Args:
        features: The features.
        most: Bytes that such a copy may take in float32, where it is to be less still.
    """
    size = _BLOCK_BYTES if most is None else min(most, _BLOCK_BYTES)
    return blocks(len(features), max(1, size // (4 * features.shape[1] or 1)))


def unit(features: Tensor) -> Tensor:
    """Features [n, D] of any type at length one, float32; zeros stay zero."""
    vectors = features.float()
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    units: Tensor = vectors / lengths.clamp_min(_SHORT)
    # Float32 does not hold the square of more than 1.8e19, nor well that of less than 1e-19.
    lost = ((lengths < _SHORT) | lengths.isinf())[:, 0]
    if lost.any():
        units[lost] = _unit_by_largest(features[lost])
    return units


def _unit_by_largest(features: Tensor) -> Tensor:
    """As `unit`, however long or short they are: each is divided by its largest number first."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    largest = wide.abs().amax(dim=1, keepdim=True)
    return F.normalize((wide / largest.masked_fill(largest == 0, 1)).float(), dim=1)


def result_bytes(k: int) -> int:
    """What the neighbours of a query take while they are merged and sorted: a few copies of 4 + 8 bytes each."""
    return 6 * 12 * k


def queries_at_once(memory: int, *, fixed: int, each: int) -> int:
    """How many queries fit.

    Args:
        memory: All there is, bytes.
        fixed: What is taken however many there are.
        each: What one query takes.

    Raises:
        UsageError: If not even one does.
    """
    if memory < fixed + each:
        megabytes = -(-(fixed + each) // 10**6)
        raise UsageError(
            f"--search-memory {memory:,} bytes: a single query takes {fixed + each:,}",
            f"type --search-memory {megabytes}MB or more",
        )
    return (memory - fixed) // each


def in_order(similarities: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours [q, k] nearest first, equally near ones by their row."""
    rows, places = rows.sort(dim=1)
    similarities, order = similarities.gather(1, places).sort(dim=1, descending=True, stable=True)
    return similarities, rows.gather(1, order)


def larger(found: tuple[Tensor, Tensor] | None, more: tuple[Tensor, Tensor], width: int) -> tuple[Tensor, Tensor]:
    """The `width` largest of similarities that were found and of some more, with their rows; in any order."""
    if found is None:
        return more
    similarities, rows = (torch.cat(both, dim=1) for both in zip(found, more, strict=True))
    if rows.shape[1] <= width:
        return similarities, rows
    similarities, places = similarities.topk(width, dim=1, sorted=False)
    return similarities, rows.gather(1, places)

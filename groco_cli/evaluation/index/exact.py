"""What makes a search exact: one order of neighbours, whichever library multiplied.

The similarity of two vectors is the inner product of them at length one in float32 (or fp16). The larger comes first;
of equal ones, the one whose row is smaller. Libraries sum in float32, in an order of their own, and choose among equal
products as it comes. So they are asked for a few more than k; neighbours that are nearly as near as another are
multiplied again, and it is these products, summed in float64 and rounded to float32, that are larger or equal; where
more may be as near as the last, more are asked for; and where even these do not suffice, the whole bank is gone through
again for that query. A neighbour that no other is nearly as near as keeps the product that the library summed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.evaluation.index.blocks import blocks, in_order, result_bytes, unit

MORE = 8, 256  # neighbours that are asked for beyond k: at first, and where these were not enough
_DOUBT, _HALF_DOUBT = 4e-6, 2e-5  # products nearer than that may be equal: twice what libraries err by, and more
_AGAIN_BYTES = 32 * 2**20  # of vectors that are multiplied again at once
_MOST_ROWS = 4096  # of the bank that are gone through at once
_LOW = 2**32 - 1


class ExactIndex(ABC):
    """A bank, searched exhaustively by a library.

    Args:
        bank: Features [n, D], not normalised, on the CPU.
        memory: What a search may take beside bank, queries and results, bytes.
        half: Whether vectors are rounded to fp16 before they are multiplied.
        most: The most neighbours that the library finds.
        device: Where the bank is gone through again.

    Attributes:
        backend: What serves, for people.
    """

    exact = True
    backend: str

    def __init__(
        self,
        bank: Tensor,
        *,
        memory: int,
        half: bool = False,
        most: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._bank, self._memory, self._half = bank, memory, half
        self._most = min(most or len(bank), len(bank))
        # MPS has no float64.
        self._again = device if device is not None and device.type == "cuda" else torch.device("cpu")

    @abstractmethod
    def _queries_at_once(self, width: int) -> int:
        """How many queries may be searched for `width` neighbours within the memory."""

    @abstractmethod
    def _candidates(self, queries: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """The rows of the `width` largest products, in any order, and these: on the CPU."""

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest of the bank to each query.

        Args:
            queries: Features [q, D], not normalised.
            k: At most the size of the bank.

        Returns:
            Cosines, nearest first, float32 [q, k], and rows of the bank, int64 [q, k], on the CPU; equal cosines by
            their row.

        Raises:
            UsageError: If one query does not fit the memory.
        """
        found = torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
        left = torch.arange(len(queries))
        for width in self._widths(k):
            if not len(left):
                break
            size = self._queries_at_once(width)
            open_ones = [self._answer(queries, left[block], width, found) for block in blocks(len(left), size)]
            left = torch.cat([left[:0], *open_ones])
        if len(left):
            self._go_through(queries, left, found)
        return found

    def _widths(self, k: int) -> Iterator[int]:
        """How many neighbours are asked for, time after time."""
        yield from dict.fromkeys(min(k + more, self._most) for more in MORE)

    def _answer(self, queries: Tensor, numbers: Tensor, width: int, found: tuple[Tensor, Tensor]) -> Tensor:
        """Search for some of the queries; those of them that are returned, by number, have to be searched again."""
        asked, k = queries[numbers], found[0].shape[1]
        similarities, rows = in_order(*self._candidates(asked, width))
        open_ones = similarities[:, k - 1] - similarities[:, -1] <= self._doubt()
        self._multiply_again(asked, similarities, rows)
        similarities, rows = in_order(similarities, rows)
        found[0][numbers], found[1][numbers] = similarities[:, :k], rows[:, :k]
        return numbers[open_ones] if width < len(self._bank) else numbers[:0]

    def _multiply_again(self, asked: Tensor, similarities: Tensor, rows: Tensor) -> None:
        """In place, the similarities that are nearly another's of the same query."""
        close = similarities[:, :-1] - similarities[:, 1:] <= self._doubt()
        places = (F.pad(close, (0, 1)) | F.pad(close, (1, 0))).nonzero()
        # Two vectors as they are, as float32 and as float64, and the products of their elements.
        size = max(1, min(_AGAIN_BYTES, self._memory // 4) // (40 * asked.shape[1] or 1))
        for block in blocks(len(places), size):
            query, place = places[block].T
            one, other = self._ready(asked[query]).double(), self._ready(self._bank[rows[query, place]]).double()
            similarities[query, place] = (one * other).sum(dim=1).float()

    def _go_through(self, queries: Tensor, numbers: Tensor, found: tuple[Tensor, Tensor]) -> None:
        """Search the whole bank in float64 for some of the queries, in a quarter of the memory: a library keeps its."""
        dim, k, device = queries.shape[1], found[0].shape[1], self._again
        memory = self._memory // 4
        at_once = min(_MOST_ROWS, max(1, memory // (4 * 20 * dim or 1)))
        size = max(1, (memory - 20 * dim * at_once) // (24 * dim + 32 * at_once + result_bytes(k)))
        for block in blocks(len(numbers), size):
            asked = self._ready(queries[numbers[block]].to(device)).double()
            best = torch.empty(len(asked), 0, dtype=torch.int64, device=device)
            for part in blocks(len(self._bank), at_once):
                products = asked @ self._ready(self._bank[part].to(device)).double().T
                keys = _keys(products.float(), part)
                best = torch.cat([best, keys.topk(min(k, keys.shape[1]), dim=1).values], dim=1)
                best = best.topk(min(k, best.shape[1]), dim=1).values
            found[0][numbers[block]], found[1][numbers[block]] = (tensor.cpu() for tensor in _of_keys(best))

    def _ready(self, features: Tensor) -> Tensor:
        """Features as they are multiplied."""
        return unit(features).half() if self._half else unit(features)

    def _doubt(self) -> float:
        return _HALF_DOUBT if self._half else _DOUBT


def _keys(similarities: Tensor, rows: slice) -> Tensor:
    """Whole numbers, int64 [q, rows], that are ordered as neighbours are: no two alike, so that topk has no choice."""
    bits = (similarities + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) + (_LOW - torch.arange(rows.start, rows.stop, device=bits.device))


def _of_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities and rows that keys stand for."""
    ordered = (keys >> 32).int()
    return torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).view(torch.float32), _LOW - (keys & _LOW)

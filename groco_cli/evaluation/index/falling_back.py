"""FAISS on a GPU for as long as it can, then torch.

FAISS raises RuntimeError with its place in C++ and what was asserted, when a GPU has not the memory. What goes wrong in
a kernel ends the process (`CUDA_VERIFY`): that no one can catch.
"""

from collections.abc import Callable

from torch import Tensor

from groco_cli.evaluation.index.exact import ExactIndex


class FallingBack:
    """An index that FAISS serves, until it fails.

    Args:
        first: Opens FAISS's; may raise RuntimeError, as its search may.
        then: Opens what serves instead, told why.

    Attributes:
        backend: What serves, for people.
    """

    exact = True

    def __init__(self, first: Callable[[], ExactIndex], then: Callable[[str], ExactIndex]) -> None:
        self._then, failed = then, ""
        try:
            self._take(first())
        except RuntimeError as error:
            failed = failure(error)
        if failed:  # out here, where nothing holds the memory of what failed any more
            self._take(then(failed))
        self._may_fail = not failed

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `ExactIndex.search`."""
        if not self._may_fail:
            return self._index.search(queries, k)
        try:
            return self._index.search(queries, k)
        except RuntimeError as error:
            failed = failure(error)
        del self._index
        self._may_fail = False
        self._take(self._then(failed))
        return self._index.search(queries, k)

    def _take(self, index: ExactIndex) -> None:
        self._index, self.backend = index, index.backend


def failure(error: RuntimeError) -> str:
    """In a few words, what FAISS raised."""
    text = " ".join(str(error).split())
    if "out of memory" in text:
        return "FAISS ran out of the GPU's memory"
    return f"FAISS failed: {text.rpartition(' failed: ')[2][:200]}"

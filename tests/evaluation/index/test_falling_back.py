"""Stand-ins for FAISS's index and torch's, to see what is alive when."""

import weakref

import pytest
import torch

from groco_cli.evaluation.index.falling_back import FallingBack, failure


class Stand:
    backend = "FAISS"

    def search(self, queries, k):
        raise RuntimeError("out of memory")


class Other(Stand):
    def __init__(self, why: str) -> None:
        self.backend = f"torch ({why})"

    def search(self, queries, k):
        return queries, k


@pytest.mark.parametrize("opening_fails", [False, True])
def test_what_failed_has_let_go_of_its_memory_before_another_opens(opening_fails: bool):
    seen: list[weakref.ref] = []

    def first():
        stand = Stand()
        seen.append(weakref.ref(stand))
        if opening_fails:
            raise RuntimeError("out of memory")
        return stand

    def then(why: str):
        assert seen[0]() is None
        return Other(why)

    index = FallingBack(first, then)
    assert index.search(torch.ones(1), 3) == (torch.ones(1), 3)
    assert index.backend == "torch (FAISS ran out of the GPU's memory)"


def test_what_serves_instead_fails_by_itself():
    index = FallingBack(Stand, lambda why: Stand())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            index.search(torch.ones(1), 3)


def test_a_failure_is_told_in_few_words():
    assert failure(RuntimeError("Error in a() at b.cu:3: Error: 'x'\nfailed: no\n")) == "FAISS failed: no"
    assert len(failure(RuntimeError("no " * 200))) < 220

"""Batches brought to a device: in order, and on a GPU by one stream, epoch after epoch."""

from contextlib import nullcontext

import torch

from groco_cli.data.prefetch import Prefetcher


class FakeStream:
    """A GPU's, of which it is known what waited for it."""

    made = 0

    def __init__(self, device: torch.device) -> None:
        FakeStream.made += 1
        self.waited: list[FakeStream] = []

    def wait_stream(self, other: "FakeStream") -> None:
        self.waited.append(other)


class FakeTensor:
    """One that remembers which streams use it."""

    def __init__(self) -> None:
        self.users: list[FakeStream] = []

    def record_stream(self, stream: FakeStream) -> None:
        self.users.append(stream)


def test_on_a_cpu_batches_are_finished_one_by_one_as_they_are_asked_for():
    seen: list[int] = []
    finished = Prefetcher(torch.device("cpu")).ahead([1, 2, 3], lambda number: [seen.append(number) or number])
    assert (next(finished), seen) == ([1], [1])
    assert (list(finished), seen) == ([[2], [3]], [1, 2, 3])


def test_on_a_gpu_each_is_begun_one_ahead_and_one_stream_serves_all_epochs(monkeypatch):
    computing = FakeStream(torch.device("cuda"))
    monkeypatch.setattr(FakeStream, "made", 0)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    prefetcher = Prefetcher(torch.device("cuda"))
    for _ in range(3):
        tensors = [FakeTensor() for _ in range(4)]
        begun: list[FakeTensor] = []
        finished = prefetcher.ahead(tensors, lambda tensor, begun=begun: [begun.append(tensor) or tensor])
        for number, batch in enumerate(finished):
            assert batch == [tensors[number]]
            assert begun == tensors[: number + 2]
            assert batch[0].users == [computing]
        assert number == 3
    assert FakeStream.made == 1
    assert set(computing.waited) == {prefetcher._stream}

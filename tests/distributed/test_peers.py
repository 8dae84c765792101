"""How processes that were started together take their devices and cores, and who speaks when they end."""

import threading
import time

import pytest
import torch
import torch.distributed as dist

from groco_cli import devices
from groco_cli.distributed import peers
from groco_cli.distributed.interrupt import Interrupted
from groco_cli.distributed.launch import LaunchSettings
from groco_cli.distributed.peers import Peers, joined
from groco_cli.errors import GrocoError, UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def current(monkeypatch) -> list[torch.device]:
    """The devices that are made the current one, on a machine with two GPUs and no launcher."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(peers, "place", lambda environment: None)
    return taken


def test_a_gpu_that_is_asked_for_becomes_the_current_one(current):
    with joined(LaunchSettings(device="cuda:1")) as alone:
        assert alone.device == torch.device("cuda", 1)
    with joined(LaunchSettings(device="cpu")):
        pass
    assert current == [torch.device("cuda", 1)]


@pytest.mark.parametrize(("cores", "sharing", "workers"), [(96, 8, 11), (96, 1, 16), (12, 1, 11), (8, 8, 1), (4, 8, 1)])
def test_the_cores_of_a_machine_are_divided_before_workers_are_limited(monkeypatch, cores, sharing, workers):
    monkeypatch.setattr(devices, "usable_cores", lambda: cores)
    assert Peers(device=GPU, sharing=sharing).workers == workers
    assert Peers(device=CPU, sharing=sharing).workers == 0


class Ended(threading.Thread):
    """A process, played by a thread: its work within what tells an error once, and what it ends with."""

    def __init__(self, store, rank, work):
        super().__init__(daemon=True)
        self.me = Peers(device=CPU, rank=rank, world=2, store=store)
        self.work = work
        self.error: BaseException | None = None
        self.at = 0.0
        self.start()

    def run(self):
        try:
            with peers._told_once(self.me.store, self.me.rank):
                self.work(self.me)
        except BaseException as error:
            self.error, self.at = error, time.monotonic()


def failing(error: Exception, *, closing: float = 0.0):
    """Work that ends in an error while something is open, which takes the first process its time to close."""

    def work(me: Peers) -> None:
        try:
            with me.ending_together():
                raise error
        finally:
            if me.is_first:
                time.sleep(closing)

    return work


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(peers, "_FIRST_SPEAKS", 0.3)
    return dist.PrefixStore("groco", dist.HashStore())


@pytest.mark.parametrize(
    ("error", "code"), [(Interrupted("after step 3", "go on", 15), 143), (GrocoError("the loss is nan"), 1)]
)
def test_the_others_wait_until_the_first_has_closed_what_it_writes_to(store, error, code):
    first, other = (Ended(store, rank, failing(error, closing=1.0)) for rank in (0, 1))
    first.join(10)
    other.join(10)
    assert first.error is error
    assert isinstance(other.error, SystemExit)
    assert other.error.code == code
    assert other.at > first.at


def test_a_first_process_that_is_late_to_stop_is_waited_for(store):
    stopped = Interrupted("after step 3", "go on", 15)

    def late(me: Peers) -> None:
        time.sleep(0.0 if me.rank else 1.0)
        raise stopped

    first, other = (Ended(store, rank, late) for rank in (0, 1))
    first.join(10)
    other.join(10)
    assert first.error is stopped
    assert (type(other.error), other.error.code) == (SystemExit, 143)


def test_what_the_first_finds_before_anything_is_open_it_tells_too(store):
    def work(me: Peers) -> None:
        raise UsageError("--batch-size 3 does not divide")

    first, other = (Ended(store, rank, work) for rank in (0, 1))
    first.join(10)
    other.join(10)
    assert first.error.message == "--batch-size 3 does not divide"
    assert (type(other.error), other.error.code) == (SystemExit, 2)


def test_an_error_of_one_alone_is_told_by_it_while_the_first_works_on(store):
    goes_on = threading.Event()
    first = Ended(store, 0, lambda me: goes_on.wait(10))
    other = Ended(store, 1, failing(GrocoError("cannot decode 17.png")))
    other.join(10)
    assert first.is_alive()
    assert other.error.message == "process 1: cannot decode 17.png"
    goes_on.set()
    first.join(10)


def test_a_first_process_that_told_and_took_the_store_with_it_is_not_repeated(store):
    class Held:
        """The store of srun's first task, which is there until that one has spoken."""

        def check(self, notes):
            if notes == [peers._ENDED]:
                raise dist.DistNetworkError("Connection reset by peer")
            return True

    with pytest.raises(SystemExit) as ended, peers._told_once(Held(), 1):
        raise UsageError("--batch-size 3 does not divide")
    assert ended.value.code == 2


READ_ERROR = "[/src/gloo/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:37294: Connection reset by peer. GLHF!"
TIMED_OUT = "[/src/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation"


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (RuntimeError(READ_ERROR), "the connection to it broke"),
        (RuntimeError(TIMED_OUT), "it did not answer in --process-timeout"),
        (dist.DistBackendError("NCCL error: unhandled cuda error\nmore"), "NCCL error: unhandled cuda error"),
    ],
)
def test_a_process_that_is_lost_is_told_of_in_plain_words(store, monkeypatch, error, how):
    monkeypatch.setattr(peers, "_CULPRIT_SPEAKS", 0.0)
    with pytest.raises(GrocoError) as caught, peers._told_once(store, 1):
        raise error
    assert caught.value.message == f"process 1 lost another one ({how})"


def test_nobody_waits_for_a_first_process_that_is_gone(monkeypatch):
    class Gone:
        def check(self, *what):
            raise dist.DistNetworkError("Connection reset by peer")

        set = add = check

    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waited"))
    for rank in (0, 1):
        with pytest.raises(GrocoError, match="disk is full"), peers._told_once(Gone(), rank):
            raise GrocoError("disk is full")

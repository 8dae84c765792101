"""Several processes take up one state together, or none; threads stand for processes here."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from groco_cli import console
from groco_cli.engine.checkpoint import DamagedStateError
from groco_cli.engine.configuration import override
from groco_cli.engine.feeding import open_training_set, view_loader
from groco_cli.engine.objective import build_loss
from groco_cli.engine.processes import Processes
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.saving import Saver
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.step import build_step
from groco_cli.errors import GrocoError

CPU = torch.device("cpu")


@dataclass
class Board:
    """Where threads meet, and what they tell each other."""

    count: int
    numbers: dict[int, int] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.count, timeout=60)


@dataclass(frozen=True, kw_only=True)
class Thread(Processes):
    """A process as the others know it."""

    board: Board

    def from_first(self, what: str, make: Callable[[], str]) -> str:
        if self.is_first:
            self.board.text = make()
        self.board.barrier.wait()
        return self.board.text

    def agreed(self, number: int | None) -> int:
        self.board.numbers[self.rank] = number or 0
        self.board.barrier.wait()
        return max(self.board.numbers.values())


def savers(settings: PretrainSettings, count: int) -> list[Saver]:
    """One for each of several processes that are about to go on with a run; their weights are random."""
    loss = build_loss(settings.loss, settings.method.method)
    alone, board = Processes(device=CPU), Board(count)
    loader = view_loader(settings, open_training_set(settings.data).train, alone)
    steps = [build_step(settings, loss, alone, "fp32") for _ in range(count)]
    for rank, step in enumerate(steps):
        torch.nn.init.constant_(next(step.model.parameters()), rank)
    return [
        Saver(
            settings,
            RunFolder(Path(settings.run.output)),
            step.model,
            step.state,
            loader,
            Thread(device=CPU, rank=rank, world=count, board=board),
        )
        for rank, step in enumerate(steps)
    ]


def resume(all_of_them: list[Saver]) -> list[GrocoError | None]:
    """Let all resume at once; what each ends with."""

    def one(saver: Saver) -> GrocoError | None:
        try:
            saver.resume()
        except GrocoError as error:
            return error
        return None

    with ThreadPoolExecutor(len(all_of_them)) as threads:
        return list(threads.map(one, all_of_them))


def first_weights(saver: Saver) -> torch.Tensor:
    return next(saver._model.parameters())


def reads(saver: Saver, monkeypatch: pytest.MonkeyPatch, what: Callable[[Path], str]) -> None:
    """Have one process see another file than the others do where a state lies."""
    monkeypatch.setattr(saver._state, "load", what)


@pytest.fixture
def run(quick) -> tuple[PretrainSettings, RunFolder]:
    """A run of which the states of three steps were saved, the weights differing."""
    settings = override(quick, {"run": {"keep": 3}}, "test")
    (saver,) = savers(settings, 1)
    for step in (4, 5, 6):
        saver._state.step = step
        torch.nn.init.constant_(first_weights(saver), step / 10)
        saver.save()
    return settings, RunFolder(Path(settings.run.output))


@pytest.mark.parametrize("damaged", [0, 1])
def test_all_take_up_the_state_that_the_first_names_and_it_alone_warns(run, monkeypatch, damaged):
    settings, folder = run
    for path in folder.states[:damaged]:
        path.write_bytes(path.read_bytes()[:500])
    warnings: list[str] = []
    monkeypatch.setattr(console, "warn", warnings.append)
    processes = savers(settings, 3)
    assert resume(processes) == [None] * 3
    assert [saver.kept for saver in processes] == [6 - damaged] * 3
    expected = torch.load(folder.state(6 - damaged), weights_only=True)["model"]
    for saver in processes:
        for name, weights in saver._model.state_dict().items():
            assert torch.equal(weights, expected[name])
    assert [str(folder.state(6)) in warning for warning in warnings] == [True] * damaged


def test_a_process_to_which_the_newest_state_looks_damaged_takes_no_older_one(run, monkeypatch):
    settings, folder = run
    processes = savers(settings, 3)

    def damaged(path: Path) -> str:
        raise DamagedStateError(f"{path} is damaged")

    reads(processes[1], monkeypatch, damaged)
    errors = resume(processes)
    assert {error and error.message for error in errors} == {
        f"--resume: not every process read {folder.state(6)} as the first one did"
    }
    assert [saver.kept for saver in processes] == [None] * 3


def test_a_process_that_still_sees_an_older_file_of_that_name_ends_all(run, monkeypatch):
    settings, folder = run
    processes = savers(settings, 2)
    load = processes[1]._state.load
    reads(processes[1], monkeypatch, lambda _: load(folder.state(5)))
    errors = resume(processes)
    assert all(error and "not every process read" in error.message for error in errors)


def test_where_nothing_was_saved_all_begin_anew(run):
    settings, folder = run
    for path in (*folder.states, *folder.path.glob("checkpoints/*")):
        path.unlink()
    processes = savers(settings, 2)
    assert resume(processes) == [None] * 2
    assert [saver.kept for saver in processes] == [None] * 2
    assert [bool((first_weights(saver) == rank).all()) for rank, saver in enumerate(processes)] == [True] * 2


def test_the_first_process_alone_clears_away_what_was_left_behind(run):
    settings, folder = run
    left = folder.path / "state/.step-000000007-ab_3xyz9.pt"
    left.write_text("half")
    first, second = savers(settings, 2)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(second.resume)
        while second._processes.board.barrier.n_waiting == 0:
            assert not waiting.done()
            time.sleep(0.001)
        assert left.exists()
        first.resume()
    assert not left.exists()
    assert waiting.result() is None

"""Two processes, each with half of every batch, train as one does with all of it; on the CPU, over gloo."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from groco_cli import devices
from groco_cli.distributed.interrupt import Interrupted
from groco_cli.engine import pretrain, step
from groco_cli.engine.configuration import override
from groco_cli.engine.feeding import decoders, scoring_decoders
from groco_cli.engine.methods import Method
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.objective import build_method
from groco_cli.engine.processes import Processes, joined
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import DataSettings, LossSettings, PretrainSettings, RunSettings
from groco_cli.errors import UsageError
from groco_cli.models import load_encoder

CPU = torch.device("cpu")


def curve(folder: Path, figure: str = "loss") -> torch.Tensor:
    lines = read_metrics(RunFolder(folder).metrics)
    return torch.tensor([line[figure] for line in lines if line["kind"] == "train"], dtype=torch.float64)


def in_double(settings: PretrainSettings) -> Method:
    """The networks in float64, where rounding stays far below what a mistake would make."""
    method = build_method(settings).double()
    for encoder in (method.encoder, getattr(method, "momentum_encoder", method.encoder)):
        encoder.register_forward_pre_hook(lambda _, images: (images[0].double(),))
    return method


def take_place(rank: int, port: int) -> None:
    """What torchrun tells one of two processes."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}


def one_of_two(rank: int, port: int, settings: PretrainSettings) -> None:
    take_place(rank, port)
    step.build_method = in_double
    pretrain(settings)


def one_of_two_with_drop_path(rank: int, port: int, settings: PretrainSettings, stop: int) -> None:
    """Begins the run or goes on with it, until the first process gets a signal after a step."""
    take_place(rank, port)
    create, reported, folder = timm.create_model, Report.step, RunFolder(Path(settings.run.output))

    def stopped(self: Report, now: int) -> None:
        reported(self, now)
        if rank == 0 and now == stop:
            signal.raise_signal(signal.SIGINT)

    Report.step = stopped
    timm.create_model = lambda *names, **options: create(*names, drop_path_rate=0.5, **options)
    with suppress(Interrupted, SystemExit):
        pretrain(settings, resume=folder if folder.holds_a_run else None)


def in_two_processes(one: Callable[..., None], settings: PretrainSettings, *more: object) -> Path:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.spawn(one, (port, settings, *more), nprocs=2)
    return Path(settings.run.output)


@pytest.fixture
def twenty_steps(tiny) -> PretrainSettings:
    """Of a ViT; what is left of BN is in the heads."""
    return override(
        replace(tiny, loss=LossSettings()),
        {
            "model": {"arch": "test_vit"},
            "optim": {"batch_size": 20, "epochs": 4, "warmup_epochs": 0, "learning_rate": 0.5},
        },
        "test",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "method"), [("groco", "siamese"), pytest.param("infonce", "mocov3", marks=pytest.mark.long)]
)
def test_the_curves_of_two_processes_equal_those_of_one(twenty_steps, tmp_path, monkeypatch, loss, method):
    monkeypatch.setattr(step, "build_method", in_double)
    settings = override(twenty_steps, {"loss": {"loss": loss}, "method": {"method": method}}, "test")
    one = pretrain(override(settings, {"run": {"output": str(tmp_path / "one")}}, "test"))
    two = in_two_processes(one_of_two, settings)
    assert len(curve(one)) == 20
    assert curve(one).std() > 1e-4  # it is no flat line
    for figure in ("loss", "positive_similarity", "negative_similarity"):
        torch.testing.assert_close(curve(two, figure), curve(one, figure), atol=1e-8, rtol=0)
    trained = [load_encoder(RunFolder(folder).latest).state_dict() for folder in (one, two)]
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, atol=1e-6, rtol=0)
    kinds = [[line["kind"] for line in read_metrics(RunFolder(folder).metrics)] for folder in (one, two)]
    assert kinds[0] == kinds[1]


@pytest.mark.long
def test_two_processes_that_draw_at_random_resume_bit_for_bit_in_mid_epoch(twenty_steps, tmp_path):
    settings = override(twenty_steps, {"optim": {"epochs": 2}, "run": {"knn_every": 0}}, "test")
    whole = override(settings, {"run": {"output": str(tmp_path / "whole")}}, "test")
    folder = RunFolder(in_two_processes(one_of_two_with_drop_path, settings, 7))
    assert [path.stem for path in folder.states] == ["step-000000007", "step-000000005"]
    in_two_processes(one_of_two_with_drop_path, settings, 0)
    in_two_processes(one_of_two_with_drop_path, whole, 0)
    runs = folder, RunFolder(Path(whole.run.output))
    states = [torch.load(run.state(10), weights_only=True)["model"] for run in runs]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert len(curve(folder.path)) == 10
    assert torch.equal(*(curve(run.path) for run in runs))


@pytest.mark.parametrize(("batch", "hint"), [(32, "30 or 33"), (2, "3")])
def test_a_batch_that_does_not_divide_is_refused(batch, hint):
    with pytest.raises(UsageError, match=f"--batch-size {batch} does not divide among 3 processes") as caught:
        Processes(device=CPU, world=3).share(batch)
    assert caught.value.hint == f"type --batch-size {hint}"


def test_the_shares_of_a_batch_are_the_batch():
    batch = torch.arange(12).numpy()
    parts = [Processes(device=CPU, rank=rank, world=3).share(12).of(batch) for rank in range(3)]
    assert [list(part) for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_while_the_first_scores_it_decodes_with_the_cores_of_all(monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 16)
    four = Processes(device=torch.device("cuda", 0), sharing=4)
    assert (decoders(DataSettings(), four), scoring_decoders(DataSettings(), four)) == (3, 15)
    assert (decoders(DataSettings(workers=5), four), scoring_decoders(DataSettings(workers=5), four)) == (5, 5)


def test_all_go_on_with_the_run_that_the_first_found(tmp_path):
    store = dist.HashStore()
    first, other = (Processes(device=CPU, rank=rank, world=2, store=store) for rank in (0, 1))
    first.check_resumed(RunFolder(tmp_path / "digits"))
    other.check_resumed(RunFolder(tmp_path / "digits"))
    with pytest.raises(
        UsageError, match=r"--resume: the newest run is .*digits-2 here, and .*digits for the first"
    ) as caught:
        other.check_resumed(RunFolder(tmp_path / "digits-2"))
    assert caught.value.hint == f"type --output {tmp_path / 'digits'}"


def test_two_things_of_the_first_are_not_taken_for_each_other():
    store = dist.HashStore()
    first, other = (Processes(device=CPU, rank=rank, world=2, store=store) for rank in (0, 1))
    given = [first.from_first(what, lambda what=what: f"its {what}") for what in ("run", "state")]
    assert given == [other.from_first(what, lambda: "mine") for what in ("run", "state")] == ["its run", "its state"]


def test_alone_nothing_is_gathered_or_waited_for():
    alone = Processes(device=CPU)
    alone.wait()
    assert alone.is_first
    assert (alone.agreed(None), alone.agreed(15), alone.from_first("place", lambda: "here")) == (0, 15, "here")
    assert alone.mean(torch.tensor(2.0)) == 2
    model = torch.nn.Linear(1, 1)
    assert alone.parallel(model) is model
    assert alone.together(model) is model


def test_a_script_that_wants_more_processes_says_how_to_start_them():
    with (
        pytest.raises(UsageError, match="2 processes are wanted, and this is one") as caught,
        joined(RunSettings(device="cpu", processes=2)),
    ):
        pass
    assert "torchrun --nproc-per-node 2" in caught.value.hint


def test_settings_that_no_launcher_can_meet_are_refused():
    with pytest.raises(UsageError, match="--gpus 2 and --processes 2 contradict each other"):
        PretrainSettings(run=RunSettings(gpus=2, processes=2))

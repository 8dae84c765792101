"""One process with the whole batch equals two with half of it each: losses and gradients, the halves differing."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from groco_cli.losses import GroCoLoss, InfoNCELoss, MoCoLoss, TripletLoss

IMAGES, DIM = 8, 5
LOSSES = {
    f"{name}, {'stopped' if stop else 'free'}": make(stop)
    for stop in (True, False)
    for name, make in {
        "groco": lambda stop: GroCoLoss(num_negatives=6, stop_gradient=stop),
        "groco unordered": lambda stop: GroCoLoss(num_negatives=5, preorder=False, stop_gradient=stop),
        "groco official": lambda stop: GroCoLoss(num_negatives=6, variant="official", stop_gradient=stop),
        "infonce": lambda stop: InfoNCELoss(stop_gradient=stop),
        "infonce top": lambda stop: InfoNCELoss(num_negatives=4, stop_gradient=stop),
        "moco": lambda stop: MoCoLoss(stop_gradient=stop),
        "moco top": lambda stop: MoCoLoss(num_negatives=4, stop_gradient=stop),
        "triplet": lambda stop: TripletLoss(num_negatives=4, stop_gradient=stop),
        "triplet without hinge": lambda stop: TripletLoss(margin=float("inf"), stop_gradient=stop),
    }.items()
}
CASES = [
    (name, views, positive, targets)
    for name in LOSSES
    for views, positive in ((2, 2), (4, 2))
    for targets in (("views", "keys") if "stopped" in name else ("views",))
]


def whole_batch(views: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(views)
    return [torch.randn(IMAGES, DIM, dtype=torch.float64, generator=generator) for _ in range(views)]


def measured(name: str, views: list[torch.Tensor], positive: int, targets: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and its gradient for every view, [m, B, D]; against each other, or against keys of their own."""
    leaves = [view.clone().requires_grad_() for view in views]
    loss = LOSSES[name](leaves, positive, [view.sin() for view in views] if targets == "keys" else None)
    return loss.detach(), torch.stack(torch.autograd.grad(loss, leaves))


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(rank * IMAGES // 2, (rank + 1) * IMAGES // 2)
    results = {case: measured(case[0], [view[half] for view in whole_batch(case[1])], *case[2:]) for case in CASES}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> list[dict]:
    """What each of two processes measured, for every case."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}, {case[1]} views against {case[3]}")
def test_two_processes_equal_one(halves, case):
    name, views, positive, targets = case
    loss, gradient = measured(name, whole_batch(views), positive, targets)
    (first, first_gradient), (second, second_gradient) = (half[case] for half in halves)
    assert first != second
    torch.testing.assert_close((first + second) / 2, loss)
    # What DDP averages over processes.
    torch.testing.assert_close(torch.cat([first_gradient, second_gradient], dim=1) / 2, gradient)

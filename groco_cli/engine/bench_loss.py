"""How long the sorting part and the whole losses take, forward and backward, and how much memory, on this machine."""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from groco_cli.engine.compiling import compiler_explained
from groco_cli.engine.peak_memory import peak_bytes
from groco_cli.losses import GroCoLoss, InfoNCELoss
from groco_cli.losses.base import ViewLoss
from groco_cli.sorting import SortingNetwork

_WARM_UPS = 2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one thing costs.

    Args:
        part: "sorting" or "loss".
        name: What was measured.
        size: Elements n of a list, or images B of a batch.
        seconds: Median of forward and backward together.
        peak_bytes: Most memory in use at a time, above what was there before.
        compile_seconds: What the first run took, compilation included; None where nothing is compiled.
    """

    part: str
    name: str
    size: int
    seconds: float
    peak_bytes: int
    compile_seconds: float | None = None


def bench_sorting(
    size: int, anchors: int, device: torch.device, repeats: int, *, compiled: bool = False
) -> list[Measurement]:
    """The group mass of lists of `size` elements, against `diffsort`'s permutation matrix where that is installed.

    Args:
        size: Elements n of a list.
        anchors: Lists A.
        device: Where to compute.
        repeats: Runs that the median is taken of.
        compiled: Measure what torch.compile makes of the group mass as its definition reads, too.

    Raises:
        GrocoError: If it cannot be compiled here.
    """
    x = torch.randn(anchors, size, device=device, requires_grad=True)
    weights = torch.rand(size, device=device)
    network = SortingNetwork(size)
    forms: dict[str, Callable[[], Tensor]] = {"groco": lambda: network.group_mass(x, 1)}
    if find_spec("diffsort"):
        import diffsort

        matrix = diffsort.DiffSortNet("odd_even", size, device=str(device), steepness=1.0, distribution="cauchy")
        forms["diffsort"] = lambda: matrix(x)[1][:, :, :1].sum(dim=2)

    def backward(form: Callable[[], Tensor]) -> None:
        x.grad = None
        (form() * weights).sum().backward()  # type: ignore[no-untyped-call]

    rows = [
        _measured("sorting", name, size, lambda form=form: backward(form), device, repeats)  # type: ignore[misc]
        for name, form in forms.items()
    ]
    if compiled:
        compiled_mass = torch.compile(network.group_mass_eager, dynamic=False)
        # With every column contiguous, as the uncompiled form has them: on rows this takes twice as long on a CPU.
        run = partial(backward, lambda: compiled_mass(x.T.contiguous().T, 1))
        seconds = _seconds_to_compile(run)
        rows.append(replace(_measured("sorting", "compiled", size, run, device, repeats), compile_seconds=seconds))
    return rows


def bench_losses(batch: int, dim: int, device: torch.device, repeats: int) -> list[Measurement]:
    """The whole loss on two views, against InfoNCE.

    Args:
        batch: Images B.
        dim: Length of a projection.
        device: Where to compute.
        repeats: Runs that the median is taken of.
    """
    views = [torch.randn(batch, dim, device=device, requires_grad=True) for _ in range(2)]
    losses: dict[str, ViewLoss] = {
        "GroCo": GroCoLoss(),
        "GroCo official": GroCoLoss(variant="official"),
        "InfoNCE": InfoNCELoss(),
    }

    def backward(loss: ViewLoss) -> None:
        for view in views:
            view.grad = None
        made: Tensor = loss(views)
        made.backward()  # type: ignore[no-untyped-call]

    return [
        _measured("loss", name, batch, lambda loss=loss: backward(loss), device, repeats)  # type: ignore[misc]
        for name, loss in losses.items()
    ]


def _seconds_to_compile(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    with compiler_explained(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a network's steps are traced, cached or not: as meant
        run()
    return time.perf_counter() - begun


def _measured(
    part: str, name: str, size: int, run: Callable[[], None], device: torch.device, repeats: int
) -> Measurement:
    seconds = []
    for _ in range(_WARM_UPS + repeats):
        _wait_for(device)
        begun = time.perf_counter()
        run()
        _wait_for(device)
        seconds.append(time.perf_counter() - begun)
    return Measurement(
        part=part,
        name=name,
        size=size,
        seconds=statistics.median(seconds[_WARM_UPS:]),
        peak_bytes=peak_bytes(run, device),
    )


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

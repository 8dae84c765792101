"""The paper's toy experiment (section 4.5, Figure 4): what does a loss do to negatives that are far already?

A few similarities, the first a positive, are free variables. Gradient descent lowers the GroCo loss on them,
and apart from it InfoNCE, until the positive leads the strongest negative by the same margin under both. The
distance that GroCo sorts is the negated similarity, as everywhere in the paper. How far each negative was
pushed on the way is the figure's point: GroCo moves those at the border to the positive, InfoNCE all of them.

The paper states neither β, τ, the learning rate nor the start. The defaults here are ours, and the point
hangs on them: a small β or a small τ brings the two losses together (docs/toy.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.errors import GrocoError, UsageError
from groco_cli.losses.groco import group_ordering_loss

DIVERGED = 1e6


@dataclass(frozen=True)
class ToySettings:
    """What the toy experiment starts from and how it descends.

    Args:
        start: The similarities at the start, the positive first; n ≥ 2 of them in [-1, 1], free to leave it.
        beta: GroCo's inverse temperature β.
        temperature: InfoNCE's temperature τ.
        lr: Learning rate of the gradient descent, on both losses.
        margin: Where a run stops: positive similarity minus the largest negative one.
        steps: How many gradient steps a run may take.

    Raises:
        UsageError: For a value that cannot be used, naming its option.
    """

    start: tuple[float, ...] = (0.1, 0.6, 0.45, 0.3, 0.05)
    beta: float = 8.0
    temperature: float = 0.5
    lr: float = 0.005
    margin: float = 0.6
    steps: int = 20_000

    def __post_init__(self) -> None:
        if len(self.start) < 2:
            raise UsageError("--start needs one positive and at least one negative", "e.g. 0.1,0.6,0.3")
        if not all(-1 <= similarity <= 1 for similarity in self.start):
            raise UsageError("--start must be similarities between -1 and 1", "e.g. 0.1,0.6,0.3")
        for name in ("beta", "temperature", "lr"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise UsageError(f"--{name} must be positive, not {value:g}")
        if self.steps < 1:
            raise UsageError(f"--steps must be at least 1, not {self.steps}")
        lead = self.start[0] - max(self.start[1:])
        if not (self.margin > lead and math.isfinite(self.margin)):
            raise UsageError(f"--margin must be more than the start's own, {lead:g}, not {self.margin:g}")


@dataclass(frozen=True)
class ToyRun:
    """The way of the similarities under one loss.

    Args:
        trajectory: The similarities at the start and after each step, float64 [steps + 1, n].
    """

    trajectory: Tensor

    @property
    def steps(self) -> int:
        """How many gradient steps it took."""
        return len(self.trajectory) - 1

    @property
    def start(self) -> list[float]:
        """The similarities before the first step."""
        return self._values(self.trajectory[0])

    @property
    def final(self) -> list[float]:
        """The similarities after the last step."""
        return self._values(self.trajectory[-1])

    @property
    def moved(self) -> list[float]:
        """Final minus start, of each similarity."""
        return self._values(self.trajectory[-1] - self.trajectory[0])

    @property
    def margin(self) -> float:
        """Positive minus the largest negative at the end; at least the margin asked for."""
        return self.final[0] - max(self.final[1:])

    @property
    def farthest_moved(self) -> float:
        """How far the negative with the smallest similarity at the start moved."""
        return self.moved[self.start.index(min(self.start[1:]), 1)]

    @staticmethod
    def _values(row: Tensor) -> list[float]:
        return [float(value) for value in row]


@dataclass(frozen=True)
class ToyResult:
    """Both runs of the toy experiment, and their settings."""

    settings: ToySettings
    groco: ToyRun
    infonce: ToyRun


def run_toy(settings: ToySettings) -> ToyResult:
    """Optimise the similarities under both losses until each reaches the margin.

    Args:
        settings: Start, temperatures and descent.

    Returns:
        One run a loss.

    Raises:
        GrocoError: If a loss does not reach the margin within the steps, or its descent diverges.

    Example:
        >>> result = run_toy(ToySettings())
        >>> f"{result.groco.farthest_moved:.3f} {result.infonce.farthest_moved:.3f}"
        '-0.001 -0.116'
    """
    return ToyResult(
        settings,
        groco=_descend("GroCo", partial(groco_toy_loss, beta=settings.beta), settings),
        infonce=_descend("InfoNCE", partial(infonce_toy_loss, temperature=settings.temperature), settings),
    )


def groco_toy_loss(similarities: Tensor, *, beta: float) -> Tensor:
    """GroCo (Eq. 6) of one positive and n - 1 negatives, pre-ordered as the paper trains (Table 8b).

    Args:
        similarities: [n], the positive first.
        beta: Inverse temperature β.

    Returns:
        A scalar.
    """
    negatives = similarities[1:].sort(descending=True).values
    distances = -torch.cat([similarities[:1], negatives])
    return group_ordering_loss(distances.unsqueeze(0), 1, beta=beta).squeeze(0)


def infonce_toy_loss(similarities: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE of one positive and n - 1 negatives: -log softmax(s / τ) at the positive.

    Args:
        similarities: [n], the positive first.
        temperature: τ.

    Returns:
        A scalar.
    """
    return -F.log_softmax(similarities / temperature, dim=0)[0]


def _descend(name: str, loss: Callable[[Tensor], Tensor], settings: ToySettings) -> ToyRun:
    similarities = torch.tensor(settings.start, dtype=torch.float64)
    trajectory = [similarities]
    for step in range(1, settings.steps + 1):
        leaf = similarities.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        similarities = (leaf - settings.lr * gradient).detach()
        if not similarities.abs().max() < DIVERGED:  # or not a number
            raise GrocoError(f"{name} diverged at step {step}", "lower --lr")
        trajectory.append(similarities)
        if similarities[0] - similarities[1:].max() >= settings.margin:
            return ToyRun(torch.stack(trajectory).detach())
    reached = float(similarities[0] - similarities[1:].max())
    raise GrocoError(
        f"{name} reached a margin of {reached:.3f} in {settings.steps} steps, not {settings.margin:g}",
        "raise --steps or --lr, or lower --margin",
    )

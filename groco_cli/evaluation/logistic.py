"""Logistic regression with an L2 penalty, by L-BFGS on all examples at once.

What is minimised is the sum of the examples' losses plus λ/2 ‖W‖², the bias unpenalised: scikit-learn's
`LogisticRegression` at C = 1/λ. L-BFGS works on centred features of unit size, where it converges sooner; the penalty
is carried over, so that the optimum is that of the features as they are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_ITERATIONS = 500  # a penalty at most: of the weakest ones the optimum is far away, and nobody waits for it
_SMALL_SLOPE = 1e-6  # largest slope of the mean loss against a weight, at which a fit is done
_MEMORY = 10  # past steps that L-BFGS approximates the curvature by


@dataclass(frozen=True)
class LinearClassifier:
    """One logit a class.

    Args:
        weight: [C, D].
        bias: [C].
    """

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Logits [n, C], on the CPU, of features [n, D]."""
        return torch.addmm(self.bias, features.to(self.weight), self.weight.T).cpu()


def fit_path(
    features: Tensor,
    loss: Callable[[Tensor], Tensor],
    classes: int,
    penalties: Iterable[float],
    *,
    device: torch.device,
) -> Iterator[LinearClassifier]:
    """Fit a classifier for each penalty, each from where the last one ended: best from the strongest to the weakest.

    Args:
        features: [n, D].
        loss: From logits [n, C] to the sum of the examples' losses.
        classes: C.
        penalties: Each λ, positive.
        device: Where to compute; in float64, but on a GPU of Apple's, which has none.
    """
    examples = features.to(device, torch.float32 if device.type == "mps" else torch.float64)
    middle = examples.mean(dim=0)
    examples = examples - middle
    size = examples.square().mean().sqrt().clamp(min=1e-12)
    examples /= size
    weight = torch.zeros(classes, examples.shape[1], dtype=examples.dtype, device=device, requires_grad=True)
    bias = torch.zeros(classes, dtype=examples.dtype, device=device, requires_grad=True)
    for penalty in penalties:
        _minimise(weight, bias, examples, loss, penalty / size.square())
        own = weight.detach() / size
        yield LinearClassifier(own, bias.detach() - own @ middle)


def _minimise(
    weight: Tensor, bias: Tensor, examples: Tensor, loss: Callable[[Tensor], Tensor], penalty: Tensor
) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=_SMALL_SLOPE,
        tolerance_change=0,
        history_size=_MEMORY,
        line_search_fn="strong_wolfe",
    )

    def mean_loss() -> Tensor:
        optimizer.zero_grad()
        total = loss(torch.addmm(bias, examples, weight.T)) + penalty / 2 * weight.square().sum()
        mean = total / len(examples)
        mean.backward()  # type: ignore[no-untyped-call]
        return mean

    optimizer.step(mean_loss)  # type: ignore[no-untyped-call]

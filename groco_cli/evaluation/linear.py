"""Linear classifiers on the features of a frozen encoder, several learning rates at once (SimSiam's linear probe).

SimSiam trains its classifier (github.com/facebookresearch/simsiam, main_lincls.py) with torch's SGD inside apex's LARC
with clip=False, which is LARS (You et al., 2017). Its heads start alike and see the same batches here, so that one
forward pass of the encoder serves all learning rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from groco_cli.distributed import collectives

MOMENTUM = 0.9
TRUST = 0.001
_TINY = 1e-8  # apex's eps
_BLOCK = 4096  # images scored together


@dataclass
class LinearHeads:
    """H linear classifiers of C classes over features of length D, and the momentum of each.

    Args:
        weight: float32 [H, C, D].
        bias: float32 [H, C].
        weight_momentum: float32 [H, C, D].
        bias_momentum: float32 [H, C].
    """

    weight: Tensor
    bias: Tensor
    weight_momentum: Tensor
    bias_momentum: Tensor

    @classmethod
    def create(cls, heads: int, classes: int, dim: int, *, seed: int, device: torch.device) -> Self:
        """Heads as SimSiam begins: weights N(0, 0.01), alike in all, and biases 0."""
        first = torch.randn(classes, dim, generator=torch.Generator().manual_seed(seed)) * 0.01
        weight = first.expand(heads, -1, -1).to(device).contiguous()
        bias = torch.zeros(heads, classes, device=device)
        return cls(weight, bias, torch.zeros_like(weight), torch.zeros_like(bias))

    def logits(self, features: Tensor) -> Tensor:
        """Each head's logits, [b, H, C], of features [b, D]."""
        heads, classes, dim = self.weight.shape
        together = torch.nn.functional.linear(features, self.weight.view(-1, dim), self.bias.view(-1))
        return together.view(len(features), heads, classes)

    @torch.no_grad()
    def step(
        self, features: Tensor, labels: Tensor, learning_rates: Sequence[float], *, images: int, weight_decay: float = 0
    ) -> Tensor:
        """One step of every head on a batch, of which each process has its part.

        Args:
            features: float32 [b, D] of this process's part; b may differ between processes.
            labels: int64 [b].
            learning_rates: One for each head.
            images: Images of the batch, over all processes.
            weight_decay: Of weights and biases; 0 as published.

        Returns:
            Each head's cross-entropy before the step, summed over this process's part, [H].
        """
        # The loss of an image is -log p of its class, p = softmax(W f + b). Its slope against the logits is
        # p - onehot(class), so those against W and b are (p - onehot) fᵀ and (p - onehot).
        log_p = self.logits(features).log_softmax(dim=2)
        truth = labels.view(-1, 1, 1).expand(-1, len(self.bias), 1)
        losses = -log_p.gather(2, truth).sum(dim=(0, 2))
        slopes = log_p.exp_()
        slopes.scatter_add_(2, truth, torch.full_like(truth, -1, dtype=slopes.dtype)).div_(images)
        of_weight = collectives.sum_over((slopes.flatten(1).mT @ features).view_as(self.weight))
        of_bias = collectives.sum_over(slopes.sum(dim=0))
        lars_(self.weight, of_weight, self.weight_momentum, learning_rates, weight_decay)
        lars_(self.bias, of_bias, self.bias_momentum, learning_rates, weight_decay)
        return losses


def lars_(
    parameters: Tensor, gradients: Tensor, momenta: Tensor, learning_rates: Sequence[float], weight_decay: float
) -> None:
    """LARS with momentum, as apex's LARC(SGD, trust_coefficient=0.001, clip=False) does it, on each head alone.

    Unlike SimCLR's LARS (`groco_cli.engine.optim.lars`), SimSiam's probe spares no parameter: the bias is adapted too.
    Where a norm is 0, as the bias's at the start, apex leaves gradient and decay away from their adaptation: the first
    step of the bias is plain SGD.

    Args:
        parameters: [H, …], changed in place.
        gradients: [H, …].
        momenta: [H, …], changed in place.
        learning_rates: One for each head.
        weight_decay: Added to the gradient, times the parameters.
    """

    def each(values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (parameters.ndim - 1))

    norms, slopes = parameters.flatten(1).norm(dim=1), gradients.flatten(1).norm(dim=1)
    adapted = (norms > 0) & (slopes > 0)
    trust = TRUST * norms / (slopes + weight_decay * norms + _TINY)
    decayed = (gradients + weight_decay * parameters) * each(trust)
    momenta.mul_(MOMENTUM).add_(torch.where(each(adapted), decayed, gradients))
    parameters.sub_(each(torch.tensor(learning_rates, dtype=parameters.dtype, device=parameters.device)) * momenta)


@dataclass(frozen=True, kw_only=True)
class LinearScore:
    """How a head does on the held-out images.

    Args:
        learning_rate: Its learning rate, for a batch of 256.
        train_loss: Mean cross-entropy over the last epoch's training images, as they were met.
        top1: Share of images whose class has the largest logit, in [0, 1].
        top5: Share of images whose class is among the first five.
        correct: Number of images whose class has the largest logit.
        total: Number of images.
    """

    learning_rate: float
    train_loss: float
    top1: float
    top5: float
    correct: int
    total: int


@torch.no_grad()
def count_correct(heads: LinearHeads, features: Tensor, labels: Tensor) -> Tensor:
    """For each head, how many images have their class ranked first, among the first five, and finite logits at all.

    Of classes with equal logits the lower number is ranked first; where one is not finite, none is. Each process counts
    its part, every image once.

    Args:
        heads: The heads.
        features: [n, D] of all images, on any device.
        labels: int64 [n].

    Returns:
        int64 [H, 3].
    """
    device = heads.weight.device
    counts = torch.zeros(len(heads.bias), 3, dtype=torch.int64, device=device)
    own = collectives.share_of(len(features))
    for start in range(own.start, own.stop, _BLOCK):
        block = slice(start, min(start + _BLOCK, own.stop))
        logits = heads.logits(features[block].to(device).float())
        truth = labels[block].to(device).view(-1, 1, 1)
        of_truth = logits.gather(2, truth.expand(-1, logits.shape[1], 1))
        earlier = (logits == of_truth) & (torch.arange(logits.shape[2], device=device) < truth)
        ranks = ((logits > of_truth) | earlier).sum(dim=2)  # [b, H]
        finite = logits.isfinite().all(dim=2)  # no NaN is larger than another: all would be ranked first
        counts += (torch.stack([ranks == 0, ranks < 5, finite], dim=2) & finite[:, :, None]).sum(dim=0)
    return collectives.sum_over(counts)

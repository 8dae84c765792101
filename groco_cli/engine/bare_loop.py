"""The training step as one would write it for a single experiment: nothing but torch, and no engine around it.

It is what groco's own step is measured against (`bench_train`), so it has the same networks, loss and optimiser, the
same precision and memory format, and the same views go through them together. What it lacks is all that groco's is for:
processes, micro-batches, a rate for each step, figures of it, states to go on from.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from groco_cli.engine.methods import Method, MoCoV3
from groco_cli.engine.optim import OPTIMIZERS
from groco_cli.engine.settings import PretrainSettings
from groco_cli.losses.base import ViewLoss

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class BareLoop:
    """A loop's body: `loop(views)` takes a step.

    Args:
        model: Holds the networks, on the device; only they are used of it.
        loss: What is minimised.
        settings: Whose optimiser, number of positive views and way through the networks are taken.
        precision: A resolved one: "fp32", "bf16" or "fp16".
        rate: The learning rate.
    """

    def __init__(
        self, model: Method, loss: ViewLoss, settings: PretrainSettings, *, precision: str, rate: float
    ) -> None:
        optim = settings.optim
        self.model, self.loss, self.positive_views = model, loss, settings.views.views
        self.together = settings.method.forward == "joint"
        self.device = next(model.parameters()).device
        self.dtype = _DTYPES[precision]
        self.optimizer = OPTIMIZERS[optim.optimizer](model, rate, optim.momentum, optim.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.step = self._mocov3 if isinstance(model, MoCoV3) else self._siamese

    def __call__(self, views: Sequence[Tensor]) -> Tensor:
        """Take a step.

        Args:
            views: One tensor [B, 3, size, size] a view, views of one size next to each other.

        Returns:
            The loss, without gradient.
        """
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.step(views)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _siamese(self, views: Sequence[Tensor]) -> Tensor:
        projections = self._projected(views, self.model.encoder, self.model.projector)
        return self.loss(projections, self.positive_views)  # type: ignore[no-any-return]

    def _mocov3(self, views: Sequence[Tensor]) -> Tensor:
        model = self.model
        assert isinstance(model, MoCoV3)
        with torch.no_grad():
            for fast, slow in (
                (model.encoder, model.momentum_encoder),
                (model.projector, model.momentum_projector),
            ):
                for new, old in zip(fast.parameters(), slow.parameters(), strict=True):
                    old.mul_(model.momentum).add_(new, alpha=1 - model.momentum)
            targets = self._projected(views, model.momentum_encoder, model.momentum_projector)
        predictions = self._projected(views, model.encoder, lambda seen: model.predictor(model.projector(seen)))
        return self.loss(predictions, self.positive_views, targets)  # type: ignore[no-any-return]

    def _projected(
        self, views: Sequence[Tensor], encoder: torch.nn.Module, heads: Callable[[Tensor], Tensor]
    ) -> Sequence[Tensor]:
        if self.together:
            return heads(_features(encoder, views)).chunk(len(views))
        return [heads(encoder(view)) for view in views]


def _features(encoder: torch.nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Features of all views, view after view: views of one size go through the encoder together."""
    sizes = dict.fromkeys(view.shape[-1] for view in views)
    return torch.cat([encoder(torch.cat([view for view in views if view.shape[-1] == size])) for size in sizes])

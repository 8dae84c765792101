"""Which networks see the views, and what is compared: siamese (the paper's) or MoCo v3's momentum encoder.

MoCo v3: Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers" (ICCV 2021). The paper
puts GroCo in place of its InfoNCE (section 4.4, Table 6).
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from groco_cli.engine.passes import Passes
from groco_cli.models import Encoder, Projector

METHODS = ("siamese", "mocov3")
_AT_ONCE = Passes()


class Compared(NamedTuple):
    """What a loss is given, one tensor [B, D] a view.

    Args:
        anchors: With gradients.
        targets: What they are compared with; each other where None.
    """

    anchors: list[Tensor]
    targets: list[Tensor] | None


class Method(nn.Module, ABC):
    """An encoder, a projector, and what else it takes to train them.

    Args:
        encoder: Gives features; it is what training is for.
        projector: Gives the projections that the loss compares.
        passes: Which images go through the encoder together.
    """

    def __init__(self, encoder: Encoder, projector: Projector, *, passes: Passes = _AT_ONCE) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.passes = passes

    def heads(self) -> dict[str, nn.Module]:
        """What a checkpoint holds besides the encoder, by name."""
        return {"projector": self.projector}

    def before_step(self, progress: float) -> None:
        """Get ready for a step.

        Args:
            progress: Share of the training that is done, in [0, 1].
        """

    @abstractmethod
    def forward(self, views: Sequence[Tensor]) -> Compared:
        """What the loss compares.

        Args:
            views: Images [B, 3, size, size], views of one size next to each other.
        """


class Siamese(Method):
    """One encoder and one projector see every view alike (section 3.1)."""

    def forward(self, views: Sequence[Tensor]) -> Compared:
        """The views' projections."""
        return Compared(self.passes.project(views, self.encoder, self.projector), None)


class MoCoV3(Method):
    """Predictions of the views are compared with their projections by a slowly following copy of the networks.

    Sources of the details: its released code, github.com/facebookresearch/moco-v3 (moco/builder.py, vits.py).

    Args:
        encoder: Gives features. A ViT is initialised as MoCo v3 does.
        projector: Gives projections.
        predictor: Gives predictions of projections.
        momentum: μ at the start, from which it grows to 1 along half a cosine.
        freeze_patches: Keep a ViT's patch embedding at its random start, for stable training (section 4.2 there).
        passes: Which images go through an encoder together.
    """

    def __init__(
        self,
        encoder: Encoder,
        projector: Projector,
        predictor: Projector,
        *,
        momentum: float,
        freeze_patches: bool,
        passes: Passes = _AT_ONCE,
    ) -> None:
        from groco_cli.models.vit import fix_patch_embedding, initialise_as_mocov3, is_vit

        super().__init__(encoder, projector, passes=passes)
        self.predictor = predictor
        self.momentum = momentum
        if is_vit(encoder.backbone):
            initialise_as_mocov3(encoder.backbone)
            if freeze_patches:
                fix_patch_embedding(encoder.backbone)
        self.momentum_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.momentum_projector = copy.deepcopy(projector).requires_grad_(False)

    def heads(self) -> dict[str, nn.Module]:
        """The projector and the predictor."""
        return {"projector": self.projector, "predictor": self.predictor}

    @torch.no_grad()
    def before_step(self, progress: float) -> None:
        """θ' ← μ θ' + (1 - μ) θ, for the weights; BN's running statistics are each network's own."""
        share = (1 - self.momentum) * 0.5 * (1 + math.cos(math.pi * progress))  # 1 - μ
        torch._foreach_lerp_(
            [*self.momentum_encoder.parameters(), *self.momentum_projector.parameters()],
            [*self.encoder.parameters(), *self.projector.parameters()],
            share,
        )

    def forward(self, views: Sequence[Tensor]) -> Compared:
        """Predictions, and the momentum encoder's projections of the same views."""
        predictions = self.passes.project(
            views, self.encoder, lambda features: self.predictor(self.projector(features))
        )
        with torch.no_grad():
            targets = self.passes.project(views, self.momentum_encoder, self.momentum_projector)
        return Compared(predictions, targets)

"""Settings: what learns, from what comparison, and what is minimised."""

import inspect
from dataclasses import dataclass
from typing import Any

from groco_cli.engine.methods import METHODS
from groco_cli.engine.passes import FORWARDS
from groco_cli.engine.settings.checks import at_least, one_of, positive
from groco_cli.errors import UsageError
from groco_cli.losses import GroCoLoss, InfoNCELoss, TripletLoss
from groco_cli.losses.base import ViewLoss
from groco_cli.losses.groco import VARIANTS
from groco_cli.models.encoder import STEMS
from groco_cli.sorting.comparators import NETWORKS
from groco_cli.sorting.relaxations import RELAXATIONS

LOSSES: dict[str, type[ViewLoss]] = {"groco": GroCoLoss, "infonce": InfoNCELoss, "triplet": TripletLoss}
_ARGUMENTS = {"network": "kind"}  # where the loss's argument is not called as the setting


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What learns.

    Args:
        arch: Backbone by its timm or torchvision name.
        stem: "imagenet", or "small" for ResNets on pictures of about 32 pixels.
        attention_heads: Of a ViT; 0 for those of its architecture.
        projector_hidden: Width of the projector's hidden layers.
        projector_out: Length of a projection.
        projector_layers: Number of its linear layers.
    """

    arch: str = "resnet50"
    stem: str = "imagenet"
    attention_heads: int = 0
    projector_hidden: int = 2048
    projector_out: int = 2048
    projector_layers: int = 3

    def check(self) -> None:
        """Raise a UsageError that names the option where a value cannot be used."""
        one_of("--stem", self.stem, STEMS)
        at_least("--attention-heads", self.attention_heads, 0)
        at_least("--projector-hidden", self.projector_hidden, 1)
        at_least("--projector-out", self.projector_out, 1)
        at_least("--projector-layers", self.projector_layers, 1)


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Which networks see the views; see `methods`.

    Args:
        method: "siamese" or "mocov3".
        ema_momentum: Of mocov3's momentum encoder at the start; grows to 1 along half a cosine.
        freeze_patches: Whether mocov3 keeps a ViT's patch embedding as it is.
        forward: "joint", or "per-view" for a pass of its own for each view; see `passes`.
    """

    method: str = "siamese"
    ema_momentum: float = 0.99
    freeze_patches: bool = True
    forward: str = "joint"

    def check(self) -> None:
        """Raise a UsageError that names the option where a value cannot be used."""
        one_of("--method", self.method, METHODS)
        one_of("--forward", self.forward, FORWARDS)
        if not 0 <= self.ema_momentum <= 1:
            raise UsageError(f"--ema-momentum {self.ema_momentum} is out of range", "type 0.99")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What is minimised; what is None is the loss's own default.

    Args:
        loss: "groco", "infonce" or "triplet".
        num_negatives: Strongest negatives of each anchor (10; all for infonce).
        stop_gradient: Compare anchors with constants (yes; no for infonce).
        beta: Inverse temperature of groco's swaps (1.0).
        preorder: Whether groco sorts each group first (yes).
        variant: Of groco: "paper" (default) or "official".
        network: Of groco: "odd_even" (default) or "bitonic".
        relaxation: Of its swaps ("cauchy"): see `groco_cli.sorting.relaxations`.
        temperature: Of infonce (0.1; 0.2 with mocov3).
        margin: Of triplet (0.8); may be infinite.
    """

    loss: str = "groco"
    num_negatives: int | None = None
    stop_gradient: bool | None = None
    beta: float | None = None
    preorder: bool | None = None
    variant: str | None = None
    network: str | None = None
    relaxation: str | None = None
    temperature: float | None = None
    margin: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What is set, by the argument of the loss's class."""
        set_here = {name: value for name, value in vars(self).items() if name != "loss" and value is not None}
        return {_ARGUMENTS.get(name, name): value for name, value in set_here.items()}

    @property
    def foreign(self) -> list[str]:
        """The settings that are set here, and that this loss does not have."""
        own = inspect.signature(LOSSES[self.loss]).parameters
        return [name for name in vars(self) if _ARGUMENTS.get(name, name) in self.arguments.keys() - own.keys()]

    def check(self) -> None:
        """Raise a UsageError that names the option where a value cannot be used."""
        one_of("--loss", self.loss, LOSSES)
        one_of("--variant", self.variant or VARIANTS[0], VARIANTS)
        one_of("--network", self.network or "odd_even", NETWORKS)
        one_of("--relaxation", self.relaxation or "cauchy", RELAXATIONS)
        at_least("--negatives", 1 if self.num_negatives is None else self.num_negatives, 1)
        positive("--beta", 1.0 if self.beta is None else self.beta)
        positive("--temperature", 1.0 if self.temperature is None else self.temperature)
        if self.margin is not None and not self.margin >= 0:
            raise UsageError(f"--margin {self.margin} is out of range", "type 0 or more, or inf")

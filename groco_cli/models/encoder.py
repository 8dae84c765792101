"""Encoders: any timm or torchvision backbone, its classifier removed, giving pooled features."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from groco_cli.models.small_maps import multiply_small_maps

STEMS = ("imagenet", "small")
_PADDING = {"small": 1, "small-pad2": 2}  # of small stems; the second is only ever read (see `released`)


@dataclass(frozen=True, kw_only=True)
class EncoderMetadata:
    """Everything needed to build an encoder again and to show it images; stored in its checkpoint.

    Args:
        arch: Backbone by name, "timm:" or "torchvision:" in front where both have one.
        stem: "imagenet" (as published), "small": 3×3 convolution of stride 1, no max-pool, or "small-pad2": the same
            padded by 2 instead of 1, as solo-learn has it.
        attention_heads: Of a ViT, which its weights do not tell (MoCo v3's ViT-Small has 12, timm's 6); 0 for timm's.
        image_size: Side of the square it looks at, pixels.
        resize: Length the shorter side is resized to before the centre crop, pixels.
        mean: Mean of each channel that inputs are normalised with.
        std: Standard deviation likewise.
        method: How it was trained: "groco", "untrained", ….
        epoch: Epochs it was trained for.
        data: What `--data` it was trained on.
        settings: The run's settings, as TOML.
        groco_version: The version that wrote it.

    Raises:
        ValueError: If a value is of another type, or out of its range.
    """

    arch: str
    stem: str = "imagenet"
    attention_heads: int = 0
    image_size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = field(default=(0.485, 0.456, 0.406))
    std: tuple[float, ...] = field(default=(0.229, 0.224, 0.225))
    method: str = "untrained"
    epoch: int = 0
    data: str = ""
    settings: str = ""
    groco_version: str = ""

    def __post_init__(self) -> None:
        """Check all values: they may come from a file."""
        for name in ("arch", "stem", "method", "data", "settings", "groco_version"):
            self._check(name, isinstance(getattr(self, name), str), "a text")
        for name, least in {"attention_heads": 0, "image_size": 1, "resize": 1, "epoch": 0}.items():
            value = getattr(self, name)
            self._check(name, type(value) is int and value >= least, f"a whole number, {least} or more")
        for name in ("mean", "std"):
            self._check(name, _are_three_numbers(getattr(self, name)), "three numbers")
        self._check("std", min(self.std) > 0, "positive")
        self._check("resize", self.resize >= self.image_size, f"at least the image_size, {self.image_size}")

    def _check(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"{name} is {getattr(self, name)!r:.60}, not {wanted}")


def _are_three_numbers(values: object) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == 3
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )


class Encoder(nn.Module):
    """A backbone giving one feature vector an image.

    Args:
        backbone: A module from images [B, 3, H, W] to features [B, feature_dim].
        feature_dim: Length of a feature vector.
        metadata: How to build it and what to show it.
        recognised: For people, what its checkpoint was recognised as, where groco did not write it.

    Attributes:
        doubt: For people, a warning where that was concluded from too little.
    """

    def __init__(self, backbone: nn.Module, feature_dim: int, metadata: EncoderMetadata, recognised: str = "") -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_dim = feature_dim
        self.metadata = metadata
        self.recognised = recognised
        self.doubt = ""

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features [B, feature_dim] of normalised images [B, 3, H, W]."""
        features: Tensor = self.backbone(images)
        return features


def create_encoder(metadata: EncoderMetadata) -> Encoder:
    """Build an encoder with random weights, residual branches' last BN at zero where it has them.

    Raises:
        ValueError: For an unknown architecture (with the nearest names) or stem, a small stem for a backbone that has
            no single first convolution and max-pool, or a number of attention heads that it cannot have.
    """
    from groco_cli.models.backbone import create_backbone

    if metadata.stem not in (*STEMS, *_PADDING):
        raise ValueError(f"unknown stem {metadata.stem!r}; there are {' and '.join(STEMS)}")
    backbone = create_backbone(metadata.arch, metadata.image_size, metadata.attention_heads)
    if metadata.stem in _PADDING:
        _shrink_stem(backbone, metadata.arch, _PADDING[metadata.stem])
    multiply_small_maps(backbone)
    return Encoder(backbone, _feature_dim(backbone, metadata.image_size), metadata)


def _shrink_stem(backbone: nn.Module, arch: str, padding: int) -> None:
    """The CIFAR stem of ResNets (SimCLR, appendix B.9): 3×3 convolution of stride 1, no max-pool."""
    conv = getattr(backbone, "conv1", None)
    if not isinstance(conv, nn.Conv2d) or not hasattr(backbone, "maxpool"):
        raise ValueError(f"a small stem is for ResNets with one first convolution; {arch!r} is none")
    small = nn.Conv2d(conv.in_channels, conv.out_channels, kernel_size=3, padding=padding, bias=conv.bias is not None)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    backbone.conv1 = small
    backbone.maxpool = nn.Identity()


def _feature_dim(backbone: nn.Module, image_size: int) -> int:
    training = backbone.training
    try:
        with torch.no_grad():
            shape = backbone.eval()(torch.zeros(1, 3, image_size, image_size)).shape
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"the backbone cannot look at {image_size}-pixel images ({error})") from error
    backbone.train(training)
    if len(shape) != 2:
        raise ValueError(f"the backbone gives features of shape {tuple(shape[1:])}, not one vector per image")
    return int(shape[1])

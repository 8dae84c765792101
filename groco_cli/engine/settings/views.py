"""Settings: which views of the images, and how each is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch

from groco_cli.data.views import AUGMENTATIONS, View
from groco_cli.engine.settings.checks import at_least, channels, in_turn, one_of, span


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """Which views of them; what is None is the augmentation's own, as published.

    Args:
        augmentation: "dino", "mocov3", "simclr", "small" or "digits".
        views: Global views m ≥ 2; they serve as positives.
        local_views: Smaller views, anchors only (multi-crop).
        image_size: Side of a global view, pixels.
        local_size: Side of a local view, pixels.
        mean: Normalisation of each channel: its mean.
        std: Its standard deviation.
        crop_scale: Smallest and largest share of the image that a global view shows.
        local_crop_scale: Likewise of a local view.
        interpolation: "bicubic" or "bilinear".
        brightness: Strength of its jitter; see `Photometric`, likewise for the next three.
        contrast: Strength of its jitter.
        saturation: Strength of its jitter.
        hue: Strength of its jitter.
        jitter: How often these four are applied.
        grey: How often a view loses its colours.
        blur: How often a global view is blurred: one value for all, or one for each in turn.
        blur_sigma: Smallest and largest standard deviation of the blur, pixels.
        solarise: How often a global view is solarised: as for `blur`.
        flip: How often a view is mirrored.
        view_precision: What colours and blur are computed in: "fp32" or "bf16".
    """

    augmentation: str = "dino"
    views: int = 2
    local_views: int = 0
    image_size: int = 224
    local_size: int = 96
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_scale: tuple[float, ...] | None = None
    local_crop_scale: tuple[float, ...] | None = None
    interpolation: str | None = None
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    jitter: float | None = None
    grey: float | None = None
    blur: tuple[float, ...] | None = None
    blur_sigma: tuple[float, ...] | None = None
    solarise: tuple[float, ...] | None = None
    flip: float | None = None
    view_precision: str = "fp32"

    def __str__(self) -> str:
        """How many of which size, for people: "2×224 + 6×96"."""
        return f"{self.views}×{self.image_size}" + f" + {self.local_views}×{self.local_size}" * (self.local_views > 0)

    def check(self) -> None:
        """Raise a UsageError that names the option where a value cannot be used."""
        one_of("--augmentation", self.augmentation, AUGMENTATIONS)
        one_of("--interpolation", self.interpolation or "bicubic", ("bicubic", "bilinear"))
        one_of("--view-precision", self.view_precision, ("fp32", "bf16"))
        span("--crop-scale", self.crop_scale, "0.14 1.0")
        span("--local-crop-scale", self.local_crop_scale, "0.05 0.14")
        span("--blur-sigma", self.blur_sigma, "0.1 2.0", most=inf)
        in_turn("--blur", self.blur, "blur = [1.0, 0.1]")
        in_turn("--solarise", self.solarise, "solarise = [0.0, 0.2]")
        channels("views.mean", self.mean, ViewSettings.mean, least=-inf)
        channels("views.std", self.std, ViewSettings.std, least=0)
        at_least("--views", self.views, 2)
        at_least("--local-views", self.local_views, 0)
        at_least("--image-size", self.image_size, 8)
        at_least("--local-size", self.local_size, 8)
        self.draw()  # which checks the rest of them

    def draw(self) -> tuple[View, ...]:
        """How each view is drawn, global ones first."""
        published = AUGMENTATIONS[self.augmentation](self.views, self.local_views, self.image_size, self.local_size)
        return tuple(self._changed(view, number) for number, view in enumerate(published))

    def _changed(self, view: View, number: int) -> View:
        """A view as published, but for what is set otherwise."""
        is_global = number < self.views
        photometric = {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
            "jitter_probability": self.jitter,
            "grey_probability": self.grey,
            "blur_probability": self.blur[number % len(self.blur)] if self.blur and is_global else None,
            "blur_sigma": self.blur_sigma,
            "solarise_probability": self.solarise[number % len(self.solarise)] if self.solarise and is_global else None,
            "flip_probability": self.flip,
        }
        crop = {
            "crop_scale": self.crop_scale if is_global else self.local_crop_scale,
            "interpolation": self.interpolation,
            "photometric": replace(view.photometric, **_given(photometric)),
        }
        return replace(view, **_given(crop))

    @property
    def dtype(self) -> torch.dtype:
        """What colours and blur are computed in."""
        return torch.bfloat16 if self.view_precision == "bf16" else torch.float32

    @property
    def evaluation_resize(self) -> int:
        """What the shorter side is resized to before the centre crop: 256 for 224; small pictures stay whole."""
        return self.image_size if self.image_size < 96 else round(self.image_size * 256 / 224)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

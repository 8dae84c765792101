"""Which views are drawn of an image: the published augmentations, as settings.

A view is a crop, turned where asked, then a photometric change. DINO and SimCLR views are those of the authors'
released code (github.com/ninatu/learning_by_sorting, dataloader/transforms.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from groco_cli.data.photometric import Photometric


@dataclass(frozen=True, kw_only=True)
class Affine:
    """A random turn, zoom and shift, each uniform.

    Args:
        rotation: Largest turn to either side, radians.
        zoom: Smallest and largest factor.
        shift: Largest shift in either direction, as a share of half the width.
    """

    rotation: float
    zoom: tuple[float, float]
    shift: float


@dataclass(frozen=True, kw_only=True)
class View:
    """How one view of an image is drawn.

    Args:
        size: Side of the square it becomes, pixels.
        crop_scale: Smallest and largest share of the image's area that is cropped.
        crop_ratio: Narrowest and widest aspect ratio of the crop.
        interpolation: "bicubic" or "bilinear", antialiased.
        affine: A turn, zoom and shift after the crop, if any.
        photometric: What is done to its colours and sharpness.
    """

    size: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    affine: Affine | None = None
    photometric: Photometric = field(default_factory=Photometric)

    def __str__(self) -> str:
        shown = (
            "the whole picture" if min(self.crop_scale) == 1 else f"crop of {_percent(*self.crop_scale)} of the area"
        )
        parts = [f"{shown}, {self.interpolation}"]
        if self.affine is not None:
            low, high = self.affine.zoom
            parts.append(f"turn ±{self.affine.rotation:g} rad, zoom {low:g}–{high:g}, shift ±{self.affine.shift:g}")
        return "; ".join([*parts, *_described(self.photometric)])


def dino(views: int, local_views: int, size: int, local_size: int) -> tuple[View, ...]:
    """DINO views as the released code has them: odd ones always blurred, even ones seldom, but solarised."""
    jitter = Photometric(
        brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, jitter_probability=0.8, grey_probability=0.2
    )
    blurred = replace(jitter, blur_probability=1.0)
    solarised = replace(jitter, blur_probability=0.1, solarise_probability=0.2)
    local = View(size=local_size, crop_scale=(0.05, 0.14), photometric=replace(jitter, blur_probability=0.5))
    globals_ = (
        View(size=size, crop_scale=(0.14, 1.0), photometric=solarised if i % 2 else blurred) for i in range(views)
    )
    return (*globals_, *[local] * local_views)


def mocov3(views: int, local_views: int, size: int, local_size: int) -> tuple[View, ...]:
    """MoCo v3's views for ViTs: DINO's but for larger crops, of 0.08 and more, and bilinear (its main_moco.py)."""
    drawn = dino(views, local_views, size, local_size)
    globals_ = (replace(view, crop_scale=(0.08, 1.0), interpolation="bilinear") for view in drawn[:views])
    return (*globals_, *drawn[views:])


def simclr(views: int, local_views: int, size: int, local_size: int) -> tuple[View, ...]:
    """SimCLR views as the released code has them; local ones with DINO's smaller crops."""
    photometric = Photometric(
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        jitter_probability=0.8,
        grey_probability=0.2,
        blur_probability=0.5,
    )
    view = View(size=size, crop_scale=(0.08, 1.0), interpolation="bilinear", photometric=photometric)
    return (*[view] * views, *[replace(view, size=local_size, crop_scale=(0.05, 0.14))] * local_views)


def small(views: int, local_views: int, size: int, local_size: int) -> tuple[View, ...]:
    """Views for pictures of about 32 pixels: crops of a fifth and more, jitter at half strength, no blur."""
    photometric = Photometric(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_probability=0.8, grey_probability=0.2
    )
    view = View(size=size, crop_scale=(0.2, 1.0), photometric=photometric)
    return (*[view] * views, *[replace(view, size=local_size, crop_scale=(0.05, 0.2))] * local_views)


def digits(views: int, local_views: int, size: int, local_size: int) -> tuple[View, ...]:
    """Views for the embedded digits: turned, zoomed and shifted anew, never mirrored (a 2 is no mirrored 5)."""
    view = View(
        size=size,
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        interpolation="bilinear",
        affine=Affine(rotation=0.35, zoom=(0.7, 1.4), shift=0.3),
        photometric=Photometric(brightness=0.4, contrast=0.4, jitter_probability=0.8, flip_probability=0.0),
    )
    return (*[view] * views, *[replace(view, size=local_size)] * local_views)


AUGMENTATIONS: dict[str, Callable[[int, int, int, int], tuple[View, ...]]] = {
    "dino": dino,
    "mocov3": mocov3,
    "simclr": simclr,
    "small": small,
    "digits": digits,
}


def _described(settings: Photometric) -> list[str]:
    """The changes that are made, each with how often and how strong."""
    strengths = {name: getattr(settings, name) for name in ("brightness", "contrast", "saturation", "hue")}
    low, high = settings.blur_sigma
    changes = {
        "flip": (settings.flip_probability, ""),
        "jitter": (settings.jitter_probability, ", ".join(f"{name} {s:g}" for name, s in strengths.items() if s)),
        "grey": (settings.grey_probability, ""),
        "blur": (settings.blur_probability, f"σ {low:g}–{high:g} px"),
        "solarise": (settings.solarise_probability, ""),
    }
    return [
        f"{name} {_percent(often)}" + f" ({strength})" * bool(strength)
        for name, (often, strength) in changes.items()
        if often
    ]


def _percent(*shares: float) -> str:
    return "–".join(f"{100 * share:g}" for share in shares) + "\N{NO-BREAK SPACE}%"

"""How pictures become features for retrieval: the named settings.

`dino` is what DINO's eval_image_retrieval.py does, which the paper's Table 2 follows; image sizes and scales are those
of its README. `revisitop` differs in one thing: each query is cropped to its box first, as the sets' authors demand.

Either shrinks a picture until it fits a square of the image size, its aspect kept (Pillow's `thumbnail`, Lanczos;
smaller pictures stay as they are), shows the encoder all of it, and compares L2-normalised features by their inner
product. With several scales the normalised picture is resized bilinearly to each, and the features are averaged.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from groco_cli.errors import UsageError, did_you_mean

NAMES = ("dino", "revisitop")
_SINGLE_SCALE = (1.0,)
_THREE_SCALES = (1.0, 1 / math.sqrt(2), 1 / 2)


@dataclass(frozen=True, kw_only=True)
class RetrievalProtocol:
    """One such setting.

    Args:
        name: "dino" or "revisitop".
        crop_query: Whether the query's picture is cropped to its box.
        image_size: The longer side that larger pictures are shrunk to, pixels.
        scales: Factors of that size at which features are taken and averaged.
        whiten: Folder of pictures that a PCA whitening is learnt on; None for no whitening.
    """

    name: str
    crop_query: bool
    image_size: int
    scales: tuple[float, ...]
    whiten: Path | None = None

    def __str__(self) -> str:
        """All of it in a line, for people."""
        return (
            f"{self.name}, {self.image_size} pixels, scales {', '.join(f'{scale:.4g}' for scale in self.scales)}, "
            f"queries {'cropped to their box' if self.crop_query else 'whole'}, "
            f"whitening {f'learnt on {self.whiten}' if self.whiten else 'off'}"
        )


def named_protocol(name: str, dataset: str) -> RetrievalProtocol:
    """The published setting for a set.

    Args:
        name: "dino" or "revisitop".
        dataset: "rparis6k" is seen at 512 pixels and three scales, "roxford5k" and any other at 224 and one.

    Raises:
        UsageError: For an unknown name.
    """
    if name not in NAMES:
        raise UsageError(
            f"--protocol {name}: no such protocol", did_you_mean(name, NAMES) or f"type {' or '.join(NAMES)}"
        )
    large = dataset == "rparis6k"
    return RetrievalProtocol(
        name=name,
        crop_query=name == "revisitop",
        image_size=512 if large else 224,
        scales=_THREE_SCALES if large else _SINGLE_SCALE,
    )


def parse_scales(listed: str) -> tuple[float, ...]:
    """The factors in `--scales`, such as "1,0.7071,0.5".

    Raises:
        UsageError: If one is no number, not positive, or above 4.
    """
    try:
        scales = tuple(float(scale) for scale in listed.split(","))
    except ValueError:
        raise UsageError(f"--scales {listed!r} is no list of numbers", "e.g. --scales 1,0.7071,0.5") from None
    if not all(0 < scale <= 4 for scale in scales):
        raise UsageError(f"--scales {listed}: a scale lies above 0 and is at most 4", "e.g. --scales 1,0.7071,0.5")
    return scales

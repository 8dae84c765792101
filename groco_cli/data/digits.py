"""The embedded data set: scikit-learn's handwritten digits, scattered over a black canvas.

1,797 real 8×8 digits (Alpaydin and Kaynak, 1998) are scaled to 20 pixels and drawn on 32×32 at a random place, scale
and rotation, always the same ones. Training and test pictures show different handwriting: of every five digits one
is for testing, drawn once; the others are for training, drawn twice.

On a plain background alone: coloured, textured or noisy ones identify a picture better than its shape does, all views
share them, and the encoder learns them instead.
"""

import math
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.data.counter import uniforms
from groco_cli.data.crops import affine

SIZE = 32
_DIGIT_SIZE = 20
_TEST_EVERY = 5
_TRAIN_RENDERINGS = 2
_SEED = 2023
_ROTATION, _SHIFT, _ZOOM = 0.45, 0.3, (0.7, 1.3)  # radians, share of half the width, factor


@lru_cache(maxsize=2)
def digits(*, train: bool) -> tuple[Tensor, Tensor]:
    """The pictures and their labels.

    Returns:
        uint8 [n, 3, 32, 32] and int64 [n] in 0..9; n is 2,874 for training (1,437 digits twice), 360 for testing.
    """
    squares, written = read_handwriting()
    handwriting = torch.from_numpy(squares).float().div(16)[:, None]  # [1797, 1, 8, 8] in [0, 1]
    number = np.arange(len(handwriting))
    chosen = number[(number % _TEST_EVERY > 0) if train else (number % _TEST_EVERY == 0)]
    renderings = _TRAIN_RENDERINGS if train else 1
    pictures = torch.cat([_scatter(handwriting[chosen], chosen, rendering) for rendering in range(renderings)])
    labels = torch.from_numpy(written[chosen]).long().repeat(renderings)
    return pictures, labels


def read_handwriting() -> tuple[np.ndarray, np.ndarray]:
    """What `sklearn.datasets.load_digits` gives, [1797, 8, 8] in 0..16 and [1797], without its import's seconds."""
    spec = find_spec("sklearn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if file is None or not file.exists():  # laid out in another way
        from sklearn.datasets import load_digits

        loaded = load_digits()
        return loaded.images, loaded.target
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]


def _scatter(handwriting: Tensor, number: np.ndarray, rendering: int) -> Tensor:
    """Draw each digit at its own random place; uint8 [n, 3, 32, 32]."""
    scaled = F.interpolate(handwriting, size=_DIGIT_SIZE, mode="bicubic", antialias=True).clamp(0, 1)
    canvas = F.pad(scaled, [(SIZE - _DIGIT_SIZE) // 2] * 4).expand(-1, 3, -1, -1)
    draws = torch.from_numpy(uniforms(4, seed=_SEED, epoch=0, view=rendering, samples=number)).float()
    rotation, shift = (draws[:, 0] * 2 - 1) * _ROTATION, (draws[:, 1:3] * 2 - 1) * _SHIFT
    zoom = torch.exp(math.log(_ZOOM[0]) + draws[:, 3] * math.log(_ZOOM[1] / _ZOOM[0]))
    return affine(canvas, rotation, zoom, shift).mul(255).round().to(torch.uint8)

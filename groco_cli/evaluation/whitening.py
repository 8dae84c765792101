"""PCA whitening of features, learnt on pictures other than those that are searched (Jégou and Chum, 2012)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.errors import GrocoError

_LEAST_VARIANCE = 1e-9  # of the largest: below lies what float32 features leave of directions without any


@dataclass(frozen=True)
class Whitening:
    """A map that takes features to ones of equal variance in all directions, then to unit length.

    Args:
        mean: Subtracted first, [D].
        projection: Principal axes, each divided by its standard deviation, [D, d].
    """

    mean: Tensor
    projection: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Whiten unit features [B, D] to unit features [B, d]."""
        return F.normalize((features - self.mean) @ self.projection, dim=1)


def learn_whitening(features: Tensor) -> Whitening:
    """Learn a whitening from features.

    Args:
        features: Unit length, float32 [n, D]; where n is at most D, it keeps n - 1 directions.

    Raises:
        GrocoError: If the features are all alike.
    """
    mean = features.double().mean(dim=0)
    centred = features.double() - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(features) - 1))
    kept = variance > max(_LEAST_VARIANCE * float(variance[-1]), 1e-15)
    if not kept.any():
        raise GrocoError(
            "--whiten: all features are alike; there is nothing to learn", "name a folder of more pictures"
        )
    return Whitening(mean.float(), (axes[:, kept] / variance[kept].sqrt()).float())

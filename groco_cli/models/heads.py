"""Heads on top of the encoder."""

from itertools import pairwise

from torch import Tensor, nn


class Projector(nn.Module):
    """The published projection head: (Linear, BN, ReLU) twice, then Linear and BN without affine parameters.

    No layer has a bias: each is followed by a BN, which takes it out again (the released code keeps one in the last
    layer, frozen at its random start; the BN behind it makes it void).

    Args:
        in_features: Length of the encoder's features.
        hidden: Width of the hidden layers, 2,048 as published.
        out: Length of a projection, 2,048 as published.
        layers: Number of linear layers, 3 as published.

    Source: section 4.1; SimSiam (Chen and He, 2021), whose projection MLP it is.
    """

    def __init__(self, in_features: int, *, hidden: int = 2048, out: int = 2048, layers: int = 3) -> None:
        super().__init__()
        widths = [in_features, *[hidden] * (layers - 1)]
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            blocks += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        blocks += [nn.Linear(widths[-1], out, bias=False), nn.BatchNorm1d(out, affine=False)]
        self.layers = nn.Sequential(*blocks)

    def forward(self, features: Tensor) -> Tensor:
        """Projections [B, out] of features [B, in_features]."""
        projections: Tensor = self.layers(features)
        return projections

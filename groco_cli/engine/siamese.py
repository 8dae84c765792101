"""The paper's set-up: one encoder and one projector see every view alike (section 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groco_cli.models import Encoder, Projector


class Siamese(nn.Module):
    """Encoder and projector.

    Args:
        encoder: Gives features.
        projector: Gives the projections that the loss compares.
    """

    def __init__(self, encoder: Encoder, projector: Projector) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Project each view.

        Views of one size go through the encoder together, and all features through the projector together.

        Args:
            views: Images [B, 3, size, size], views of one size next to each other.

        Returns:
            Projections [B, D], one tensor a view.
        """
        sizes = [view.shape[-1] for view in views]
        features = [
            self.encoder(torch.cat([view for view in views if view.shape[-1] == size])) for size in dict.fromkeys(sizes)
        ]
        return list(self.projector(torch.cat(features)).chunk(len(views)))

"""Losses over the projections of several views of a batch of images."""

from groco_cli.losses.groco import GroCoLoss, group_ordering_loss

__all__ = ["GroCoLoss", "group_ordering_loss"]

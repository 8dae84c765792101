"""Losses over the projections of several views of a batch of images."""

from groco_cli.losses.groco import GroCoLoss, group_ordering_loss
from groco_cli.losses.infonce import InfoNCELoss
from groco_cli.losses.moco import MoCoLoss
from groco_cli.losses.triplet import TripletLoss

__all__ = ["GroCoLoss", "InfoNCELoss", "MoCoLoss", "TripletLoss", "group_ordering_loss"]

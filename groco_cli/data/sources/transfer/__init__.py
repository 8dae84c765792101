"""The eleven sets of the paper's Table 3, split as the transfer literature splits them; docs/transfer.md lists them."""

from groco_cli.data.sources.transfer.sets import (
    TRANSFER_SETS,
    Failed,
    Missing,
    TransferSet,
    open_transfer_set,
)
from groco_cli.data.sources.transfer.voc2007 import ObjectSource

__all__ = ["TRANSFER_SETS", "Failed", "Missing", "ObjectSource", "TransferSet", "open_transfer_set"]

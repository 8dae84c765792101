"""Losses by name, built from settings; what is not set is the loss's own default."""

import inspect

from groco_cli.engine.settings import LossSettings
from groco_cli.errors import UsageError
from groco_cli.losses import GroCoLoss, InfoNCELoss, TripletLoss
from groco_cli.losses.base import ViewLoss

_CLASSES: dict[str, type[ViewLoss]] = {"groco": GroCoLoss, "infonce": InfoNCELoss, "triplet": TripletLoss}
_OPTIONS = {"num_negatives": "--negatives"}  # where it is not the setting's name with dashes


def build_loss(settings: LossSettings) -> ViewLoss:
    """Build the loss.

    Args:
        settings: Its name, and values for arguments of its class.

    Raises:
        UsageError: If a value is set that this loss does not have.
    """
    made = _CLASSES[settings.loss]
    given = {name: value for name, value in vars(settings).items() if name != "loss" and value is not None}
    foreign = [name for name in given if name not in inspect.signature(made).parameters]
    if foreign:
        option = _OPTIONS.get(foreign[0], f"--{foreign[0].replace('_', '-')}")
        raise UsageError(f"{option} is no setting of --loss {settings.loss}", "leave it out or choose another --loss")
    return made(**given)

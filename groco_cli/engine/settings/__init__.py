"""The settings of a pre-training run: frozen, checked once here, trusted everywhere else."""

from groco_cli.engine.settings.data import DataSettings
from groco_cli.engine.settings.learner import LOSSES, LossSettings, MethodSettings, ModelSettings
from groco_cli.engine.settings.optim import OptimSettings
from groco_cli.engine.settings.pretrain import PretrainSettings
from groco_cli.engine.settings.run import RunSettings
from groco_cli.engine.settings.views import ViewSettings

__all__ = [
    "LOSSES",
    "DataSettings",
    "LossSettings",
    "MethodSettings",
    "ModelSettings",
    "OptimSettings",
    "PretrainSettings",
    "RunSettings",
    "ViewSettings",
]

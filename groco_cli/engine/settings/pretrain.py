"""All settings of a pre-training run together."""

from dataclasses import dataclass, field

from groco_cli.engine.settings.data import DataSettings
from groco_cli.engine.settings.learner import LossSettings, MethodSettings, ModelSettings
from groco_cli.engine.settings.optim import OptimSettings
from groco_cli.engine.settings.run import RunSettings
from groco_cli.engine.settings.views import ViewSettings


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Everything that a run depends on.

    Raises:
        UsageError: If a value cannot be used, naming its option.
    """

    recipe: str = ""
    data: DataSettings = field(default_factory=DataSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        for section in (self.data, self.views, self.model, self.method, self.loss, self.optim, self.run):
            section.check()

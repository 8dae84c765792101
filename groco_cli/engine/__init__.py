"""The training engine: settings in, a run's folder out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groco_cli.engine.settings import PretrainSettings
    from groco_cli.engine.trainer import pretrain

__all__ = ["PretrainSettings", "pretrain"]


def __getattr__(name: str) -> object:
    """Import on first use: `groco toy` needs this package, but not timm and FAISS."""
    if name == "pretrain":
        from groco_cli.engine.trainer import pretrain

        return pretrain
    if name == "PretrainSettings":
        from groco_cli.engine.settings import PretrainSettings

        return PretrainSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

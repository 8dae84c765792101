"""Where metrics go besides metrics.jsonl: TensorBoard and Weights & Biases (`--log-to`), each in the run's folder.

Both are extras. Their packages are looked for before a run begins, and imported when it does.
"""

import dataclasses
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from groco_cli import console
from groco_cli.errors import GrocoError
from groco_cli.files import atomic_write

SINKS = ("tensorboard", "wandb")  # named as the packages, and as groco's extras

if TYPE_CHECKING:
    from groco_cli.engine.settings import PretrainSettings


class Sink(Protocol):
    """What takes the lines of metrics.jsonl as they are written."""

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Take a line; see `MetricsLog.write`."""

    def close(self) -> None:
        """Take no more."""


class TensorBoardSink:
    """Event files in RUN/tensorboard, for `tensorboard --logdir RUN`.

    Args:
        folder: The run's.
        step: The step the run goes on from; what was logged of later ones is there still, but TensorBoard hides it.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a scalar a figure, tagged such as "train/loss"."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandbSink:
    """A run of Weights & Biases; its files lie in RUN/wandb. WANDB_MODE, WANDB_PROJECT and so on count as ever.

    All parts of a run that was resumed bear one id, kept in RUN/wandb/id.txt. Weights & Biases takes steps in order
    only: what it has of steps that are run again after a crash, it keeps.

    Args:
        folder: The run's; its name becomes that of the run there.
        settings: The run's, which become its config.

    Raises:
        GrocoError: If it does not start.
    """

    def __init__(self, folder: Path, settings: "PretrainSettings") -> None:
        import wandb

        place = folder / "wandb" / "id.txt"
        if not place.exists():
            with atomic_write(place) as temporary:
                temporary.write_text(secrets.token_hex(4), encoding="utf-8")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "groco"),
                name=folder.resolve().name,
                id=place.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(folder),
                config=dataclasses.asdict(settings),
                # It would talk on stdout too, and copy what groco says.
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as error:
            raise GrocoError(
                f"--log-to wandb: {_in_one_line(error)}", "type wandb login, or set WANDB_MODE=offline"
            ) from error
        if not self._run.offline:
            console.note(f"wandb      {self._run.url}")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Log a line's figures together, named such as "train/loss"."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def check_installed(names: Sequence[str]) -> None:
    """Find out before a run begins whether its sinks can be had.

    Raises:
        GrocoError: If a package is missing, naming what to install.
    """
    for name in names:
        if find_spec(name) is None:
            raise GrocoError(f"--log-to {name}: its package is not installed", f"type pip install 'groco[{name}]'")


def open_sinks(settings: "PretrainSettings", folder: Path, step: int) -> list[Sink]:
    """The sinks that a run's settings name, each so guarded that its failures do not end the run.

    Args:
        settings: The run's.
        folder: The run's.
        step: The step it goes on from.

    Raises:
        GrocoError: If one cannot be opened.
    """
    makers: dict[str, Callable[[], Sink]] = {
        "tensorboard": lambda: TensorBoardSink(folder, step),
        "wandb": lambda: WandbSink(folder, settings),
    }
    return [_Guarded(name, makers[name]()) for name in dict.fromkeys(settings.run.log_to)]


class _Guarded:
    """A sink that is left out for good, with a warning, once it fails."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._name = name
        self._sink: Sink | None = sink

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        try:
            if self._sink:
                self._sink.write(kind, step, values)
        except Exception as error:
            self._leave_out(error)

    def close(self) -> None:
        try:
            if self._sink:
                self._sink.close()
        except Exception as error:
            self._leave_out(error)

    def _leave_out(self, error: Exception) -> None:
        self._sink = None
        console.warn(f"--log-to {self._name} failed ({_in_one_line(error)}): going on without it")


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

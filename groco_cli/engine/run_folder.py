"""A run's folder: what lies where, which one is next, which one was last."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from groco_cli.errors import UsageError
from groco_cli.files import RUN_METRICS, RUN_SETTINGS, cannot_read, cannot_write

RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    """The places in a run's folder.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """The resolved settings, TOML."""
        return self.path / RUN_SETTINGS

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / RUN_METRICS

    @property
    def latest(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "latest.safetensors"

    @property
    def curves(self) -> Path:
        """The picture of how training went."""
        return self.path / "plots" / "curves.png"

    @property
    def states(self) -> list[Path]:
        """What an exact resume needs, as it was at several steps, newest first.

        Raises:
            GrocoError: If the folder cannot be read; to find nothing then would be to begin the run anew.
        """
        folder = self.path / "state"
        try:
            there = list(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise cannot_read(folder, error) from error
        return sorted((path for path in there if path.match("step-*.pt")), reverse=True)

    @property
    def probe(self) -> Path:
        """What an exact resume of a linear probe needs, where the folder is one's."""
        return self.path / "linprobe.safetensors"

    def state(self, step: int) -> Path:
        """What an exact resume needs, after so many steps."""
        return self.path / "state" / f"step-{step:09d}.pt"

    @property
    def saved(self) -> list[Path]:
        """Every state and checkpoint; none where no run was begun, whoever else's such files lie there.

        Raises:
            GrocoError: If the states' folder cannot be read.
        """
        return [*self.states, *self.latest.parent.glob("[!.]*.safetensors")] if self.holds_a_run else []

    def checkpoint(self, epoch: int) -> Path:
        """The checkpoint after an epoch, counted from 0."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.safetensors"

    @property
    def lock(self) -> Path:
        """Held by the process that writes here; see `run_lock`."""
        return self.path / ".lock"

    @property
    def lock_holder(self) -> Path:
        """Which process that is, PID@HOST."""
        return self.path / ".lock-holder"

    @property
    def folders(self) -> list[Path]:
        """Every folder of it that is there."""
        try:
            return [self.path, *(path for path in self.path.iterdir() if path.is_dir())]
        except OSError as error:
            raise cannot_read(self.path, error) from error

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return f"groco pretrain --resume --output {shlex.quote(str(self.path))}"

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was begun here."""
        return self.settings.exists()


def new_run_folder(output: str, recipe: str) -> RunFolder:
    """The folder for a new run, made and found writable.

    Args:
        output: `--output`; "" for the next free one under runs/.
        recipe: The recipe's name, which such a one is called after.

    Raises:
        UsageError: If a run is there already, or other files are.
        GrocoError: If it cannot be written to.
    """
    folder = planned_run_folder(output, recipe)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        probe = folder.path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    return folder


def planned_run_folder(output: str, recipe: str) -> RunFolder:
    """The folder that `new_run_folder` would make.

    Raises:
        UsageError: If a run is there already, or other files are: images, perhaps, which the run's would be taken for.
        GrocoError: If it cannot be read.
    """
    if not output:
        names = (RUNS / (recipe if i == 1 else f"{recipe}-{i}") for i in count(1))
        return next(RunFolder(path) for path in names if not path.exists())
    folder = RunFolder(Path(output).expanduser())
    if folder.holds_a_run:
        raise UsageError(f"--output {output} already holds a run", "type --resume to go on, or name another")
    if not folder.probe.exists() and _holds_files(folder.path):  # which a linear probe goes on in
        place = folder.path / recipe
        raise UsageError(
            f"--output {output} holds other files, and no run",
            f"type --output {shlex.quote(str(place))} for a folder in it",
        )
    return folder


def _holds_files(folder: Path) -> bool:
    """Whether there is anything but hidden files, such as a run leaves that was killed before it began."""
    try:
        return any(not path.name.startswith(".") for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise cannot_read(folder, error) from error


def run_to_resume(output: Path | None) -> RunFolder:
    """The run that `--resume` means: the one in `--output`, else the newest under runs/.

    Raises:
        UsageError: If there is none.
    """
    if output is not None:
        folder = RunFolder(output.expanduser())
        if not folder.holds_a_run:
            raise UsageError(f"--output {output} holds no run to resume", "leave out --resume to begin one there")
        return folder
    return _newest("settings", "--resume: there is no run under runs/", "name its folder with --output")


def chosen_checkpoints(named: Sequence[Path] | None) -> list[Path]:
    """The checkpoints that a command is about: those named, else the newest run's.

    Raises:
        UsageError: If none is named, and there is no run.
    """
    return [checkpoint_at(path) for path in named] if named else [newest_checkpoint()]


def checkpoint_at(path: Path) -> Path:
    """The checkpoint that a path names: itself, or of a run's folder, or the folder checkpoints in it, the latest."""
    for latest in (RunFolder(path).latest, path / RunFolder(path).latest.name):
        with suppress(OSError):  # no way into it: whoever opens it says so
            if latest.is_file():
                return latest
    return path


def newest_checkpoint() -> Path:
    """The latest checkpoint of the newest run under runs/.

    Raises:
        UsageError: If there is none.
    """
    return _newest("latest", "no checkpoint given, and no run under runs/", "name one, or type: groco pretrain").latest


def newest_probe() -> RunFolder:
    """The newest linear probe under runs/.

    Raises:
        UsageError: If there is none.
    """
    return _newest("probe", "--resume: there is no linear probe under runs/", "name its folder with --output")


def _newest(mark: str, message: str, hint: str) -> RunFolder:
    """The run under runs/ whose `mark` file was written last."""
    runs = [RunFolder(path) for path in RUNS.glob("*")]
    runs = [run for run in runs if getattr(run, mark).is_file()]
    if not runs:
        raise UsageError(message, hint)
    newest: RunFolder = max(runs, key=lambda run: getattr(run, mark).stat().st_mtime)
    return newest

"""How a run is going, on stderr: a bar on a terminal, else a plain line an epoch."""

import time
from types import TracebackType
from typing import Self

from groco_cli import console
from groco_cli.engine.pace import Pace


class Report:
    """Shows the progress of a run.

    Args:
        step: Steps done before (a resumed run).
        total_steps: Steps in all.
        epochs: Epochs in all.
    """

    def __init__(self, step: int, total_steps: int, epochs: int) -> None:
        self._step, self._total, self._epochs = step, total_steps, epochs
        self._first, self._begun = step, time.monotonic()
        self._bar = console.Bar("pretrain", total_steps, done=step)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def note(self, message: str) -> None:
        """Say something above the bar."""
        self._bar.note(message)

    def step(self, step: int) -> None:
        """A step was done."""
        self._step = step
        self._bar.reach(step)

    def pace(self, pace: Pace) -> None:
        """The latest figures."""
        self._bar.figures(str(pace))

    def epoch(self, number: int, pace: Pace, knn: str) -> None:
        """An epoch is over.

        Args:
            number: Which, from 1.
            pace: Its figures.
            knn: Its k-NN score for people, "" where there is none.
        """
        done = self._step - self._first
        left = (time.monotonic() - self._begun) * (self._total - self._step) / max(1, done)
        line = f"epoch {number}/{self._epochs}  {pace}  {_duration(left)} left  {knn}"
        self.note(line.rstrip())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"

"""metrics.jsonl: one JSON object a line, "kind" first.

"train" lines every few steps and for each epoch's last, "knn" lines some epochs.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groco_cli.engine.sinks import Sink
from groco_cli.files import atomic_write, cannot_write


class MetricsLog:
    """Appends to a run's metrics.

    Args:
        path: The file.
        step: The step a resumed run goes on from; lines from later ones, which will be run again, are dropped. None
            for a run from its beginning.
        sinks: What takes every line besides; closed with the file.
    """

    def __init__(self, path: Path, step: int | None = None, sinks: Sequence[Sink] = ()) -> None:
        kept = [] if step is None else [line for line in read_metrics(path) if line["step"] <= step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._sinks = sinks

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            kind: "train" or "knn".
            step: Steps done so far.
            values: The figures.

        Raises:
            GrocoError: If the disk is full.
        """
        line = (json.dumps({"kind": kind, "step": step, **values}) + "\n").encode()
        try:
            while line:  # a disk that fills up takes part of it first
                line = line[self._file.write(line) :]
        except OSError as error:
            raise cannot_write(self._path, error) from error
        for sink in self._sinks:
            sink.write(kind, step, values)

    def sync(self) -> None:
        """See to it that all lines outlive a loss of power too.

        Raises:
            GrocoError: If the disk is full.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file and the sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


class NoLog:
    """Takes what would be logged, in a process that is not the first."""

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's metrics; a last one that a kill or a power cut spoilt is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # no JSON, or not even UTF-8
            break
    return lines

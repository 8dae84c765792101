"""metrics.jsonl: one JSON object a line, "kind" first; "train" lines every few steps, "knn" lines some epochs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groco_cli.engine.sinks import Sink
from groco_cli.files import atomic_write


class MetricsLog:
    """Appends to a run's metrics.

    Args:
        path: The file.
        step: The step a resumed run goes on from; lines from later ones, which will be run again, are dropped.
        sinks: What takes every line besides; closed with the file.
    """

    def __init__(self, path: Path, step: int = 0, sinks: Sequence[Sink] = ()) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._sinks = sinks

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            kind: "train" or "knn".
            step: Steps done so far.
            values: The figures.
        """
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        for sink in self._sinks:
            sink.write(kind, step, values)

    def close(self) -> None:
        """Close the file and the sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's metrics; a last one that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines

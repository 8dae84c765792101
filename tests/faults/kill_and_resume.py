"""Kills a run with -9 at random moments, resumes it each time, and compares its end with a run that was left alone.

    python tests/faults/kill_and_resume.py --kills 100

Every life of the run is a process of its own, forked from this one, which has torch imported already and has computed
nothing, so that it starts sooner. After each death every file that bears its final name must be whole, and nothing that
was saved may be gone. In the end weights, optimiser and metrics must be those of the other run, bit for bit.
"""

import argparse
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; one thread, so that forking is safe

import sklearn.datasets  # noqa: F401 - imported for the forked processes, half of their start
import torch

from groco_cli import app
from groco_cli.engine import trainer  # noqa: F401 - likewise
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.run_folder import RunFolder
from groco_cli.models import load_encoder

RUN = (
    *("--arch", "test_resnet", "--projector-hidden", "32", "--projector-out", "16", "--negatives", "5"),
    *("--subset", "100", "--batch-size", "32", "--optimizer", "adamw", "--lr", "0.01", "--warmup-epochs", "1"),
    *("--device", "cpu", "--precision", "fp32", "--log-every", "1", "--knn-every", "0"),
    *("--save-every", "2steps", "--milestones", "7"),
)
TIMES = ("images_per_second", "waiting")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds until the first step, and from one step to the next."""

    start_up: float
    step: float


def start(folder: RunFolder, epochs: int, log: Path) -> int:
    """Begin the run or go on with it in a new process; its id."""
    output = ["pretrain", "--output", str(folder.path)]
    typed = [*output, "--resume"] if folder.holds_a_run else [*output, *RUN, "--epochs", str(epochs)]
    pid = os.fork()
    if pid:
        return pid
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    os._exit(app.run(typed))


def ended(pid: int, log: Path) -> bool:
    """Whether the process has ended by itself, and well."""
    there, status = os.waitpid(pid, os.WNOHANG)
    assert status == 0, log.read_text()
    return there != 0


def ends_before(moment: float, pid: int, folder: RunFolder, pace: Pace, log: Path) -> bool:
    """Whether the process ends by itself before this moment of the run, in steps; it is killed there otherwise.

    Steps are counted, not timed, since a busy machine makes some of them long. What is less than a step is timed, and
    so is a moment that lies before the first one of this life, while it starts.
    """
    starting = moment < max(0, newest(folder)) + 1
    while not starting and lines(folder) + 1 <= moment:
        if ended(pid, log):
            return True
        time.sleep(0.001)
    over = time.monotonic() + moment % 1 * (pace.start_up if starting else pace.step)
    while time.monotonic() < over:
        if ended(pid, log):
            return True
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, log.read_text()
    return not os.WIFSIGNALED(status)  # it had just ended


def lines(folder: RunFolder) -> int:
    """The steps that the metrics tell of."""
    return folder.metrics.read_bytes().count(b"\n") if folder.metrics.exists() else 0


def saved_step(folder: RunFolder) -> int:
    """The newest state's step, -1 where there is none, once everything in the folder was found whole."""
    for path in folder.states:
        with ZipFile(path) as file:
            assert file.testzip() is None, path
        assert f"step-{torch.load(path, weights_only=True)['step']:09d}" == path.stem
    for path in folder.path.glob("checkpoints/[!.]*.safetensors"):
        load_encoder(path)
    return newest(folder)


def newest(folder: RunFolder) -> int:
    """The newest state's step by its name, -1 where there is none."""
    return max((int(path.stem.removeprefix("step-")) for path in folder.states), default=-1)


def doing(folder: RunFolder, before: float) -> str:
    """What the process was doing when it was killed."""
    if any(not path.name.startswith(".lock") for path in folder.path.rglob(".*")):
        return "writing"
    changed = folder.metrics.exists() and folder.metrics.stat().st_mtime > before
    return "training" if changed else "starting"


def result(folder: RunFolder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All that a run comes to: its state, and its metrics without what a clock says."""
    metrics = [{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(folder.metrics)]
    return torch.load(folder.states[0], weights_only=True), metrics


def equal(a: Any, b: Any) -> bool:
    """Whether two states are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return bool(a.dtype == b.dtype and torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def alone(place: Path, epochs: int) -> tuple[RunFolder, Pace]:
    """A run that is left alone, and how fast it was."""
    folder, begun = RunFolder(place / "alone"), time.time()
    pid = start(folder, epochs, place / "alone.log")
    while not any(line["kind"] == "train" for line in read_metrics(folder.metrics)):
        assert time.time() - begun < 300, (place / "alone.log").read_text()
        time.sleep(0.01)
    first = time.time()
    status = os.waitpid(pid, 0)[1]
    assert status == 0, (place / "alone.log").read_text()
    return folder, Pace(start_up=first - begun, step=(time.time() - first) / (3 * epochs))


def main() -> None:
    """Kill, resume, compare, and say so in a line."""
    parser = argparse.ArgumentParser(description="Kill a run with -9 at random moments and resume it.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    epochs, draw, begun = 3 + 2 * asked.kills, random.Random(asked.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        reference, pace = alone(place, epochs)
        folder, log = RunFolder(place / "killed"), place / "killed.log"
        kills, moments, saved = 0, Counter[str](), -1
        while True:
            at = max(0, saved)
            left = 3 * epochs - at
            life = min(draw.uniform(0, 2) * left / (asked.kills - kills + 1), left - 2)
            now = time.time()
            pid = start(folder, epochs, log)
            if ends_before(at + life if kills < asked.kills else math.inf, pid, folder, pace, log):
                assert "Traceback" not in log.read_text(), log.read_text()
                break
            kills += 1
            moments[doing(folder, now)] += 1
            before, saved = saved, saved_step(folder)
            assert saved >= before, f"step {before} was saved, and is gone: {saved}"
        states, metrics = zip(result(folder), result(reference), strict=True)
        same = equal(*states) and metrics[0] == metrics[1]
        files = [sorted(p.name for p in f.path.glob("checkpoints/[!.]*")) for f in (folder, reference)]
        for name in files[1]:
            pair = [load_encoder(f.path / "checkpoints" / name).state_dict() for f in (folder, reference)]
            same = same and equal(*pair)
        same = same and files[0] == files[1]
    fell = ", ".join(f"{count} while {what}" for what, count in sorted(moments.items()))
    print(
        f"{kills} kills ({fell}) in {3 * epochs} steps, {time.monotonic() - begun:.0f} s: "
        f"nothing broken or lost; states, metrics and {len(files[1])} checkpoints {'equal' if same else 'DIFFER from'} "
        "those of a run left alone"
    )
    sys.exit(0 if same and kills == asked.kills else 1)


if __name__ == "__main__":
    main()

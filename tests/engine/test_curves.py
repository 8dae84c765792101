"""The picture of a run: it follows the run, costs it next to nothing, and never ends it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from groco_cli import console
from groco_cli.engine import curves
from groco_cli.engine.curves import Curves, draw_curves
from groco_cli.errors import GrocoError

TRAIN = {"kind": "train", "loss": 0.5, "learning_rate": 0.1, "positive_similarity": 0.9, "negative_similarity": 0.2}
KNN = {"kind": "knn", "k": 20}


def lines(count: int) -> list[dict[str, object]]:
    return [TRAIN | {"step": step, "epoch": step / 10} for step in range(count)]


@pytest.mark.parametrize("scores", [[], [0.5], [0.1, 0.6, 0.4]])
@pytest.mark.parametrize("steps", [0, 1, 30])
def test_whatever_there_is_of_a_run_makes_a_picture(tmp_path, steps, scores):
    knn = [KNN | {"step": epoch, "epoch": epoch, "top1": score} for epoch, score in enumerate(scores)]
    draw_curves(lines(steps) + knn, tmp_path / "plots/curves.png", "a run")
    assert Image.open(tmp_path / "plots/curves.png").size == (1500, 960)


def test_a_title_that_looks_like_a_formula_is_drawn_as_it_stands(tmp_path):
    draw_curves(lines(2), tmp_path / "curves.png", "cifar10: resnet18 on $x_{$/f\udce9")
    assert Image.open(tmp_path / "curves.png").size == (1500, 960)


def test_a_run_of_a_single_line_is_seen_too(tmp_path):
    blue = []
    for count in (0, 1):
        draw_curves(lines(count), tmp_path / "curves.png", "a run")
        pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
        blue.append(int((pixels == (0x00, 0x72, 0xB2)).all(axis=-1).sum()))  # the loss's colour
    assert blue[0] == 0
    assert blue[1] > 20


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """A clock that a drawing moves on by its `cost`, and whose drawings are counted."""
    clock = SimpleNamespace(now=100.0, cost=1.0, drawn=[])

    def drawing(metrics: list[object], path: Path, title: str) -> None:
        clock.now += clock.cost
        clock.drawn.append(len(metrics))

    monkeypatch.setattr(curves, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(curves, "draw_curves", drawing)
    return clock


class Followed:
    """A run's metrics that grow, and its picture."""

    def __init__(self, folder: Path) -> None:
        self.metrics = folder / "metrics.jsonl"
        self.curves = Curves(self.metrics, folder / "curves.png", "a run")
        self.count = 0

    def grow(self) -> None:
        self.count += 1
        self.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines(self.count)))


def test_it_is_drawn_at_once_and_then_only_as_often_as_costs_a_fiftieth_of_the_time(tmp_path, clock):
    run = Followed(tmp_path)
    for _ in range(100):  # epochs of ten seconds, a drawing of one
        clock.now += 10
        run.grow()
        run.curves.redraw()
    assert clock.drawn[:2] == [1, 6]
    assert len(clock.drawn) == 20
    run.curves.draw()
    assert clock.drawn[-1] == 100, "the last one shows everything"


def test_long_epochs_are_all_drawn_and_nothing_is_drawn_twice(tmp_path, clock):
    run = Followed(tmp_path)
    for _ in range(3):
        clock.now += 60
        run.grow()
        run.curves.redraw()
    run.curves.draw()
    assert clock.drawn == [1, 2, 3]


def test_what_cannot_be_drawn_is_a_warning(tmp_path, clock, monkeypatch):
    warned, run = [], Followed(tmp_path)
    monkeypatch.setattr(console, "warn", warned.append)
    for error in (GrocoError("cannot write it"), ValueError("no\nfont")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(curves, "draw_curves", fail)
        run.grow()
        run.curves.draw()
    assert warned == [
        f"{tmp_path}/curves.png could not be drawn (GrocoError: cannot write it); training goes on",
        f"{tmp_path}/curves.png could not be drawn (ValueError: no font); training goes on",
    ]

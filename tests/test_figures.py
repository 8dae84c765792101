"""Figures whose text users wrote: whatever it is, it is drawn, and matplotlib says nothing of its own."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from groco_cli.figures import write_figure


@pytest.mark.filterwarnings("error::UserWarning")
def test_letters_that_the_font_lacks_are_said_each_once(tmp_path: Path):
    figure = Figure(figsize=(2, 1))
    figure.suptitle("猫 and 犬 and 猫 é")
    for _ in range(2):
        assert write_figure(figure, tmp_path / "x.png") == "猫犬"
    assert Image.open(tmp_path / "x.png").size == (300, 150)


def test_what_can_be_drawn_lacks_nothing(tmp_path: Path):
    figure = Figure(figsize=(2, 1))
    figure.suptitle("✓ ✗ ümläut")
    assert write_figure(figure, tmp_path / "x.svg") == ""
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").startswith("<?xml")

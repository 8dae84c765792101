import json
from dataclasses import asdict
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from matplotlib.text import Text
from PIL import Image

from groco_cli.app import run
from groco_cli.engine.toy import ToySettings, run_toy
from groco_cli.engine.toy_figure import draw_toy


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_plot_writes_toy_png_and_prints_the_table(run_groco, tmp_path):
    shown = run_groco("toy", "--plot")
    assert (shown.returncode, shown.stderr) == (0, "figure: toy.png\n")
    assert [file.name for file in tmp_path.iterdir()] == ["toy.png"]
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open("toy.png") as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (1470, 616))
        dark = sum(picture.convert("L").histogram()[:128])
    assert dark > 5_000  # pixels: it is not a blank page
    assert "GroCo beta=8, InfoNCE temperature=0.5, lr=0.005" in shown.stdout
    cells = [line.replace("│", " ").split() for line in shown.stdout.splitlines()]
    assert ["n4", "0.050", "0.049", "-0.001", "-0.066", "-0.116"] in cells
    assert ["margin", "-0.500", "0.601", "0.601"] in cells
    assert ["steps", "322", "119"] in cells


def test_json_is_the_library_s_result_at_its_defaults(capsys):
    assert run(["toy", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = run_toy(ToySettings())
    assert printed["settings"] == asdict(expected.settings) | {"start": list(expected.settings.start)}
    for loss in ("groco", "infonce"):
        one = getattr(expected, loss)
        assert printed[loss] == {
            "steps": one.steps,
            "margin": pytest.approx(one.margin),
            "start": one.start,
            "final": pytest.approx(one.final),
            "moved": pytest.approx(one.moved),
            "farthest_moved": pytest.approx(one.farthest_moved),
        }
    assert printed["figure"] is None


def test_options_reach_the_experiment(capsys):
    arguments = "toy --start -0.1,0.5,0.2 --beta 2 --temperature 0.3 --lr 0.02 --margin 0.2 --steps 900 --json"
    assert run(arguments.split()) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["settings"] == {
        "start": [-0.1, 0.5, 0.2],
        "beta": 2,
        "temperature": 0.3,
        "lr": 0.02,
        "margin": 0.2,
        "steps": 900,
    }


def test_output_s_ending_decides_what_is_drawn(tmp_path, capsys):
    for name, opens_with in [("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("new/folder/A.PNG", b"\x89PNG")]:
        assert run(["toy", "-o", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["figure"] == name
        assert (tmp_path / name).read_bytes().startswith(opens_with)
    assert ElementTree.parse("a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    "start", [(0.1, 0.6), (0.1, 0.6, 0.45, 0.3, 0.05), (0.1, *([0.5] * 6), 0.31, 0.3, 0.2, 0.1, 0.0, -0.5)]
)
def test_no_label_overlaps_another_or_leaves_its_panel(start):
    figure = draw_toy(run_toy(ToySettings(start, margin=0.3)))
    figure.savefig("toy.png")
    left, right = figure.axes
    for axes, end in ((left, right.bbox.x0), (right, figure.bbox.x1)):
        labels = [text for text in axes.texts if "→" in text.get_text()]
        boxes = sorted((Text.get_window_extent(label) for label in labels), key=lambda box: box.y0)
        assert len(boxes) == len(start)
        assert all(above.y0 > below.y1 for below, above in pairwise(boxes))
        assert all(axes.bbox.x1 < box.x0 and box.x1 < end for box in boxes)
        assert boxes[0].y0 > figure.bbox.y0
        assert boxes[-1].y1 < figure.bbox.y1


def test_an_overshot_margin_is_warned_of(capsys):
    assert run(["toy", "--lr", "1", "--margin", "0.3"]) == 0
    assert "warning: InfoNCE overshot the margin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--start 0.1", 2, "--start needs one positive and at least one negative"),
        ("--start 0.1,x", 2, "--start '0.1,x' is no list of numbers"),
        ("--beta 0", 2, "--beta must be positive"),
        ("--lr x", 2, "'--lr'"),
        ("--output toy.gif", 2, "--output toy.gif has no known ending"),
        ("--steps 3", 1, "raise --steps"),
        ("--output file/toy.png", 1, "cannot write file/toy.png"),
    ],
)
def test_a_mistake_is_one_line(arguments, code, message, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run(["toy", *arguments.split()]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


def test_a_mistake_ends_the_real_command_without_a_traceback(run_groco):
    shown = run_groco("toy", "--temperature", "0")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "error: --temperature must be positive, not 0\n"

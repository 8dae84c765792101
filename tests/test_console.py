"""What is said on stderr while work is going on, and how results are laid out in files and on narrow terminals."""

import io
import re

import pytest
from rich.console import Console

from groco_cli import console


@pytest.fixture(autouse=True)
def usual():
    yield
    console.configure(0)


def test_without_a_terminal_a_bar_is_not_drawn_but_what_it_notes_is_said(capsys):
    with console.Bar("features", 3) as bar:
        bar.advance(2)
        bar.note("[bold] is no markup")
    assert capsys.readouterr() == ("", "[bold] is no markup\n")


def test_with_q_it_says_nothing(capsys):
    console.configure(-1)
    with console.Bar("features", 3) as bar:
        bar.note("found")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_it_shows_what_is_done_of_how_much(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "stderr", lambda: Console(file=screen, force_terminal=True, width=100))
    with console.Bar("fetching", 9, done=2) as bar:
        bar.advance()
        bar.advance(2)
        bar.figures("5 MiB")
    assert "fetching" in screen.getvalue()
    assert "5/9 5 MiB" in screen.getvalue()
    with console.Bar("training", 9) as bar:
        bar.reach(7)
    assert "7/9" in screen.getvalue()


def test_in_a_pipe_lines_are_as_long_as_they_have_to_be(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/rather/long folder/" + 20 * "deeper/"
    console.result({}, console.listing([["run", path], ["checkpoint", "[x]"]]), as_json=False)
    assert capsys.readouterr().out == f"run         {path}\ncheckpoint  [x]\n"
    console.result(
        {}, console.titled("about " + path, console.table(["of", "top-1"], [[path, "50.25"]])), as_json=False
    )
    title, *table = capsys.readouterr().out.splitlines()
    assert title == f"about {path}"
    assert [cell.strip() for cell in table[3].split("│")[1:-1]] == [path, "50.25"]


@pytest.mark.parametrize("width", [10, 20, 40])
def test_on_a_narrow_terminal_names_are_broken_but_no_figure(monkeypatch, capsys, width):
    monkeypatch.setattr(console, "stdout", lambda: Console(force_terminal=True, width=width))
    rows = [["resnet50/imagenet/run", "20", "50.25", "1,281,167"], ["b", "20", "8.00", "n = 11"]]
    console.result({}, console.table(["encoder", "k", "top-1 %", "queries"], rows[:1], rows[1:]), as_json=False)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert "".join(row[0] for row in cells) == "".join(row[0] for row in rows)
    for figure in ("50.25", "1,281,167", "8.00"):
        assert any(figure in row for row in cells), shown
    assert "…" not in shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb.png", "a?b.png"),
        ("\x1b[31m\r\x9b\u2028", "?[31m???"),
        ("2\udcff", "2?"),
        ("Füße 猫\u200d.png", "Füße 猫\u200d.png"),
    ],
)
def test_a_name_is_said_in_one_line_whatever_is_in_it(capsys, name, shown):
    console.note(name)
    console.warn(name)
    console.error(name, "move it")
    with console.Bar("features", 1) as bar:
        bar.note(name)
    assert capsys.readouterr().err == f"{shown}\nwarning: {shown}\nerror: {shown}; move it\n{shown}\n"

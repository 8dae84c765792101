"""What is said on stderr while work is going on."""

import io

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

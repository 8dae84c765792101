r"""Comparisons as they are shown and written: figures by hand, CSV read back, LaTeX by what each character means."""

import csv
import io

import pytest
from rich.console import Console

from groco_cli import tables
from groco_cli.errors import GrocoError, UsageError
from groco_cli.tables import Column, Comparison, Figure, Report, escaped, percent, printed

SCORES = Comparison(
    columns=[Column("encoder", "encoder"), Column("top-1 %", "top1", best=1), Column("loss", "loss", best=-1)],
    groups=[
        [["a_1", percent(1 / 3), Figure(2.5, "2.50")], ["b", percent(0.25), Figure(0.5, "0.50")]],
        [["paper: [c], 2×224", printed("60.5"), None]],
    ],
)


def shown(comparison: Comparison) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(comparison.table())
    return console.file.getvalue()


def test_the_terminal_shows_rounded_figures_and_names_as_they_are():
    text = shown(SCORES)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert cells == [["a_1", "33.33", "2.50"], ["b", "25.00", "0.50"], ["paper: [c], 2×224", "60.5", "–"]]
    assert text.count("├") == 1  # a line between the groups


def test_a_spreadsheet_holds_full_precision_and_nothing_where_there_is_nothing():
    head, *rows = csv.reader(io.StringIO(SCORES.csv()))
    assert head == ["encoder", "top1", "loss"]
    assert rows[0] == ["a_1", repr(1 / 3), "2.5"]
    assert float(rows[0][1]) == 1 / 3
    assert rows[2] == ["paper: [c], 2×224", "0.605", ""]


def test_latex_has_booktabs_rules_and_the_best_of_a_group_in_bold():
    lines = SCORES.latex("50 % of\nall").splitlines()
    assert lines == [
        "% 50 % of",
        "% all",
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"encoder & top-1 \% & loss \\",
        r"\midrule",
        r"a\_1 & \textbf{33.33} & 2.50 \\",
        r"b & 25.00 & \textbf{0.50} \\",
        r"\midrule",
        r"paper: {[}c{]}, 2$\times$224 & 60.5 & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_equal_bests_are_all_bold():
    rows = [["a", percent(0.5)], ["b", printed("50.0")], ["c", percent(0.1)]]
    table = Comparison(columns=[Column("encoder", "encoder"), Column("top-1 %", "top1", best=1)], groups=[rows])
    assert table.latex("").count(r"\textbf") == 2


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 50%", r"a\_b \& 50\%"),
        (r"c:\x{}", r"c:\textbackslash{}x\{\}"),
        ("~^#$", r"\textasciitilde{}\textasciicircum{}\#\$"),
        ("two\nlines\t%x", r"two lines \%x"),
        ("†‡∞", r"\dag{}\ddag{}$\infty$"),
    ],
)
def test_every_special_character_is_escaped(text: str, latex: str):
    assert escaped(text) == latex


def test_files_are_written_and_said(tmp_path, capsys):
    places = {"csv_file": tmp_path / "new/a.csv", "latex": tmp_path / "a.tex"}
    tables.check_places(*places.values())
    other = tables.of_texts(["set"], [["dtd"]])
    report = Report(record={"k": 1}, title="k-NN", table=SCORES, notes=["T 0.07", "on cpu"], spreadsheet=other)
    report.show(as_json=True, **places)
    assert (tmp_path / "new/a.csv").read_text() == "set\ndtd\n"
    assert (tmp_path / "a.tex").read_text(encoding="utf-8") == SCORES.latex("k-NN\nT 0.07\non cpu")
    printed_lines = capsys.readouterr()
    assert printed_lines.out == '{"k": 1}\n'
    assert [line.split(": ")[0] for line in printed_lines.err.splitlines()] == ["table", "table"]
    report.show(as_json=False, csv_file=None, latex=None)
    printed_lines = capsys.readouterr()
    title, *table, first, second = printed_lines.out.splitlines()
    assert (title, first, second, printed_lines.err) == ("k-NN", "T 0.07", "on cpu", "")
    assert "33.33" in "".join(table)


def test_a_name_that_is_no_text_can_be_written(tmp_path):
    table = tables.of_texts(["encoder"], [["a\udcff"]])
    Report(record={}, title="", table=table, notes=[]).show(as_json=True, csv_file=tmp_path / "a.csv", latex=None)
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "encoder\na?\n"


def test_a_place_that_cannot_be_written_is_told_beforehand(tmp_path):
    with pytest.raises(UsageError, match="--csv and --latex both name"):
        tables.check_places(tmp_path / "x", tmp_path / "x")
    with pytest.raises(GrocoError, match="cannot write"):
        tables.check_places(None, tmp_path)

r"""A comparison: its rows and columns once, for the terminal, for a spreadsheet (CSV) and for a paper (LaTeX).

The CSV holds what was measured: full precision, shares in [0, 1], nothing where there is nothing. The terminal and
LaTeX (booktabs) show the same rounded; LaTeX sets the best of each column, within its group of rows, in bold.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from groco_cli import console
from groco_cli.errors import UsageError
from groco_cli.files import atomic_write, check_writable

NOTHING = "–"
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        "×": r"$\times$",
        "†": r"\dag{}",
        "‡": r"\ddag{}",
        "∞": r"$\infty$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"{{{character}}}" for character in "[]*"},  # an option, or a star, of the command before
    }
)


@dataclass(frozen=True)
class Figure:
    """A number, and what is shown of it."""

    value: float
    text: str


Cell = Figure | int | str | None
"""None where there is nothing to say."""


def percent(share: float) -> Figure:
    """A share in [0, 1], shown as per cent; `Figure.value` stays the share."""
    return Figure(share, f"{100 * share:.2f}")


def printed(figure: str) -> Figure:
    """A percentage as somebody else printed it, with no digit more."""
    return Figure(float(f"{figure}e-2"), figure)


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        title: Above it in the terminal and in LaTeX.
        key: Its name in CSV.
        best: Which of its figures is best: the largest (1), the smallest (-1), or none (0).
    """

    title: str
    key: str
    best: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared.

    Args:
        columns: The first of them names what a row is about.
        groups: Rows that compare with one another, set apart from the others by a line; a cell for each column.
    """

    columns: Sequence[Column]
    groups: Sequence[Sequence[Sequence[Cell]]]

    @property
    def titles(self) -> list[str]:
        """The columns' titles."""
        return [column.title for column in self.columns]

    @property
    def shown(self) -> list[list[list[str]]]:
        """The cells of each row of each group, as people see them."""
        return [[[_shown(cell) for cell in row] for row in group] for group in self.groups]

    def table(self) -> Table:
        """The table for the terminal."""
        return console.table(self.titles, *self.shown)

    def csv(self) -> str:
        """A head and the rows."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.key for column in self.columns])
        writer.writerows([[_exact(cell) for cell in row] for group in self.groups for row in group])
        return text.getvalue()

    def latex(self, about: str) -> str:
        r"""A `tabular` for `\usepackage{booktabs}`.

        Args:
            about: What has to be known to read it; comments above it, line by line.
        """
        comments = [f"% {_in_one_line(line)}" for line in about.splitlines()]
        head = " & ".join(map(escaped, self.titles))
        groups = ["\n".join(self._latex_rows(group)) for group in self.groups if group]
        return "\n".join(
            [
                *comments,
                r"% needs \usepackage{booktabs}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
                r"\toprule",
                rf"{head} \\",
                r"\midrule",
                "\n\\midrule\n".join(groups),
                r"\bottomrule",
                r"\end{tabular}",
                "",
            ]
        )

    def _latex_rows(self, group: Sequence[Sequence[Cell]]) -> list[str]:
        best = [_best([row[i] for row in group], column.best) for i, column in enumerate(self.columns)]
        return [
            " & ".join(
                rf"\textbf{{{escaped(_shown(cell))}}}"
                if isinstance(cell, Figure) and cell.value == of_column
                else escaped(_shown(cell))
                for cell, of_column in zip(row, best, strict=True)
            )
            + r" \\"
            for row in group
        ]


def of_texts(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Comparison:
    """A comparison whose cells are texts, shown as they are; its columns have one name everywhere."""
    return Comparison(columns=[Column(title, title) for title in titles], groups=[rows])


def check_places(csv_file: Path | None, latex: Path | None) -> None:
    """Find out before long work whether its tables can be written.

    Raises:
        UsageError: If both would go to one place.
        GrocoError: If one cannot be written.
    """
    for place in (csv_file, latex):
        if place:
            check_writable(place)
    if csv_file and latex and csv_file.resolve() == latex.resolve():
        raise UsageError(f"--csv and --latex both name {latex}", "give each a file of its own")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a command that compares has found.

    Args:
        record: The result for machines, as one JSON object.
        title: Above the table.
        table: The result for people.
        notes: What has to be known to read it, a line each.
        spreadsheet: What goes into the CSV, where that is laid out otherwise.
    """

    record: Mapping[str, Any]
    title: str
    table: Comparison
    notes: Sequence[str]
    spreadsheet: Comparison | None = None

    def show(self, *, as_json: bool, csv_file: Path | None, latex: Path | None) -> None:
        """Print the result, and write the files that were asked for, each with a line on stderr.

        Args:
            as_json: Whether `--json` was given.
            csv_file: Where to write the table as CSV, if at all.
            latex: Where to write it as LaTeX, if at all.
        """
        title, *notes = map(console.printable, [self.title, *self.notes])
        shown = console.titled(title, self.table.table(), "\n".join(notes))
        console.result(self.record, shown, as_json=as_json)
        about = "\n".join([self.title, *self.notes])
        for place, text in ((csv_file, (self.spreadsheet or self.table).csv()), (latex, self.table.latex(about))):
            if place:
                with atomic_write(place) as temporary:
                    temporary.write_text(text, encoding="utf-8", errors="replace", newline="")
                console.note(f"table: {place}")


def escaped(text: str) -> str:
    """A text as LaTeX sets it, in one line."""
    return _in_one_line(text).translate(_LATEX)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _shown(cell: Cell) -> str:
    if isinstance(cell, Figure):
        return cell.text
    return NOTHING if cell is None else str(cell)


def _exact(cell: Cell) -> str:
    if isinstance(cell, Figure):
        return repr(cell.value)
    return "" if cell is None else str(cell)


def _best(cells: Sequence[Cell], sign: int) -> float | None:
    """The best of a group's figures; None where there is nothing to compare."""
    values = [cell.value for cell in cells if isinstance(cell, Figure)]
    return max(values, key=lambda value: sign * value) if sign and len(values) > 1 else None

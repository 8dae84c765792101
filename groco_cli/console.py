"""Where text goes: results to stdout, everything else (progress, notes, warnings, errors) to stderr.

`NO_COLOR`, `-q`, `-v` and terminals are handled here and nowhere else.
"""

import json
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from groco_cli.early_interrupt import work_begins

_UNBOUNDED = 10_000  # columns, of what is no terminal
_NAME = 12  # columns, below which no name in a table is broken
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control, line ends, bytes that are no text

_verbosity = 0


def configure(verbosity: int) -> None:
    """Set how much is said: -1 only warnings and errors, 0 the usual, 1 everything."""
    global _verbosity
    _verbosity = verbosity


def stderr() -> Console:
    """The console for everything that is not a result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def stdout() -> Console:
    """The console for results; in a file or a pipe a line is as long as it has to be, whatever COLUMNS says."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_UNBOUNDED)


def note(message: str) -> None:
    """Say something on stderr, unless -q was given."""
    if _verbosity >= 0:
        stderr().print(printable(message), markup=False)


def detail(message: str) -> None:
    """Say something on stderr that only -v asks for."""
    if _verbosity > 0:
        stderr().print(message, markup=False, style="dim")


def warn(message: str) -> None:
    """Warn on stderr; -q does not silence it."""
    stderr().print(printable(f"warning: {message}"), markup=False, style="yellow")


def error(message: str, hint: str = "", label: str = "error") -> None:
    """Print an error as one line, its remedy behind it."""
    stderr().print(printable(f"{label}: {message}" + (f"; {hint}" if hint else "")), markup=False, style="red")


def result(data: Mapping[str, Any], shown: RenderableType, *, as_json: bool) -> None:
    """Print a command's result on stdout.

    Args:
        data: The result for machines: what `--json` prints, as one object on one line.
        shown: The same for people, such as a `rich.table.Table`.
        as_json: Whether `--json` was given.
    """
    if as_json:
        print(json.dumps(data, allow_nan=False))
    else:
        console = stdout()
        with console.capture() as captured:
            console.print(shown, crop=False)
        print("\n".join(line.rstrip() for line in captured.get().split("\n")), end="")


def table(columns: Sequence[str], *groups: Sequence[Sequence[str]]) -> Table:
    """A result table: first column to the left, the others (figures) to the right, a line between groups of rows.

    On a narrow terminal words are put below each other, and names broken; a figure always stays whole.
    """
    made = Table()
    lines = [columns, *(row for rows in groups for row in rows)]
    for i, column in enumerate(columns):
        widest = max((cell_len(word) for line in lines for word in line[i].split()), default=0)
        least = widest if i else min(widest, _NAME)
        made.add_column(_plain(column), justify="right" if i else "left", overflow="fold", min_width=least)
    for rows in groups:
        for row in rows:
            made.add_row(*map(_plain, row))
        made.add_section()
    return made


def titled(title: str, shown: RenderableType, caption: str = "") -> Group:
    """A table with a line above it, and another below, neither broken to its width."""
    return Group(Text(title, style="bold"), shown, *([Text(caption, style="dim")] if caption else []))


def listing(rows: Sequence[Sequence[str]]) -> Table:
    """Names and values, one pair per line, no value cut short."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for row in rows:
        made.add_row(*map(_plain, row))
    return made


def printable(text: str) -> str:
    """A text in one line, with a question mark for what cannot be printed: names of files may hold any byte."""
    return _UNPRINTABLE.sub("?", text)


def _plain(text: str) -> Text:
    return Text(printable(text))  # not str, in which rich takes [brackets] for markup


class Bar:
    """A progress bar on stderr while it is entered, invisible where stderr is no terminal or -q was given.

    Args:
        description: What is going on.
        total: How many there are to do.
        done: How many of them were done before.
    """

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        console = stderr()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=_verbosity < 0 or not console.is_terminal,
        )
        self._task = self._progress.add_task(description, total=total, completed=done, figures="")

    def __enter__(self) -> Self:
        work_begins()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._progress.advance(self._task, count)

    def reach(self, done: int) -> None:
        """So many are done in all."""
        self._progress.update(self._task, completed=done)

    def figures(self, text: str) -> None:
        """Show something behind the count."""
        self._progress.update(self._task, figures=text)

    def note(self, message: str) -> None:
        """Say something above the bar, unless -q was given."""
        if _verbosity >= 0:
            self._progress.console.print(printable(message), markup=False)

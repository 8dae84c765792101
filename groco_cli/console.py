"""Where text goes: results to stdout, everything else (progress, notes, warnings, errors) to stderr.

`NO_COLOR`, `-q`, `-v` and terminals are handled here and nowhere else.
"""

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_verbosity = 0


def configure(verbosity: int) -> None:
    """Set how much is said: -1 only warnings and errors, 0 the usual, 1 everything."""
    global _verbosity
    _verbosity = verbosity


def stderr() -> Console:
    """The console for everything that is not a result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def stdout() -> Console:
    """The console for results."""
    return Console(highlight=False)


def note(message: str) -> None:
    """Say something on stderr, unless -q was given."""
    if _verbosity >= 0:
        stderr().print(message, markup=False)


def detail(message: str) -> None:
    """Say something on stderr that only -v asks for."""
    if _verbosity > 0:
        stderr().print(message, markup=False, style="dim")


def warn(message: str) -> None:
    """Warn on stderr; -q does not silence it."""
    stderr().print(f"warning: {message}", markup=False, style="yellow")


def error(message: str, hint: str = "", label: str = "error") -> None:
    """Print an error as one line, its remedy behind it."""
    stderr().print(f"{label}: {message}" + (f"; {hint}" if hint else ""), markup=False, style="red")


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
        stdout().print(shown)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A result table: first column to the left, the others (figures) to the right."""
    made = Table()
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left")
    for row in rows:
        made.add_row(*row)
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
        made.add_row(*row)
    return made


def printable(text: str) -> str:
    """A text with a question mark for what cannot be printed: names of files may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode()


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
            self._progress.console.print(message, markup=False)

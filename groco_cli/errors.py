"""What a user sees when something is wrong: one line that names it, one that says what to type instead.

Nothing here is printed as a traceback: `groco_cli.app.run` turns each of these into its message and exit code.
A `GrocoError` exits 1 (it went wrong while running), a `UsageError` exits 2 (it was asked for wrongly).
"""

from collections.abc import Iterable
from difflib import get_close_matches


class GrocoError(Exception):
    """Something that the user can mend went wrong.

    Args:
        message: What is wrong, naming the option, file or value.
        hint: What to do or type instead; printed behind the message.
    """

    exit_code = 1
    label = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(GrocoError):
    """An option's value cannot be used as given."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """What another's error says, in a line: its first one that is not blank, or its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A hint with the nearest choices to a misspelt name.

    Args:
        name: What was typed.
        choices: What could have been typed.

    Returns:
        "did you mean 'x' or 'y'?", or "" where nothing is near.
    """
    near = get_close_matches(name, list(choices), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""

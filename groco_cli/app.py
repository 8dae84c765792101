"""The command `groco`: its global options, its commands (see `groco_cli.plugins`) and how it ends.

Typer's own copy of Click is private, so what of it passes through here (contexts, commands) is typed `Any`.
"""

import io
import os
import re
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from groco_cli import __version__, console
from groco_cli.errors import GrocoError, UsageError, did_you_mean
from groco_cli.plugins import BUILT_IN, Plugin, find_plugins

# Help is plain text: markup would take the brackets of "[B, D]" in a docstring for its own, and 40 ms.
MARKUP = None


class Family(TyperGroup):
    """Commands listed from their source text, imported one at a time when they run.

    A dot in a plug-in's name makes it one of a family: `bench.loss` is typed `groco bench loss`.
    """

    prefix = ""  # of the plug-ins' names, "bench." for the family `groco bench`

    @cached_property
    def plugins(self) -> dict[str, list[Plugin]]:
        """What is installed, by command."""
        found = find_plugins()
        return {name.removeprefix(self.prefix): found[name] for name in found if name.startswith(self.prefix)}

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands' names, groco's own first."""
        return list(dict.fromkeys(name.partition(".")[0] for name in self.plugins))

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """A stand-in that knows the command's help, for listing it."""
        if members := self._members(cmd_name):
            return TyperCommand(cmd_name, short_help=f"One of {', '.join(members)}.")
        found = self.plugins.get(cmd_name)
        return TyperCommand(cmd_name, short_help=found[0].help) if found else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any argument, show the help."""
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        """Import the command that is about to run, or whose options the shell wants to complete."""
        name, *rest = args
        if name not in self.list_commands(ctx):
            hint = did_you_mean(name, self.list_commands(ctx)) or f"'{ctx.command_path} --help' lists the commands"
            raise UsageError(f"no command {name!r}", hint)
        if self._members(name):
            family = Family(name=name, help="One of these commands.", rich_markup_mode=MARKUP)
            family.prefix = f"{self.prefix}{name}."
            return name, family, rest
        plugin, *ignored = self.plugins[name]
        for other in ignored:
            console.warn(f"the command {name!r} of {other} is ignored: {plugin} has one of that name")
        return name, build(plugin), rest

    def _members(self, name: str) -> list[str]:
        """The commands of a family; none for a single command, or one that groco itself has of that name."""
        members = [member for member in self.plugins if member.startswith(f"{name}.")]
        own = any(self.plugins[member][0].distribution == BUILT_IN for member in members)
        single = self.plugins.get(name)
        if single and (single[0].distribution == BUILT_IN or not own):
            return []
        return [member.removeprefix(f"{name}.") for member in members]


class Commands(Family):
    """All of groco's commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the global options."""
        rest = super().parse_args(ctx, args)
        console.configure(ctx.params["verbose"] - ctx.params["quiet"])
        return rest


class Command(TyperCommand):
    """One command; what is wrong with its options is said as its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read its options. Of one with too few values, Typer does not say whose it is."""
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            untyped: Any = error
            untyped.ctx = getattr(error, "ctx", None) or ctx
            raise


def build(plugin: Plugin) -> Any:
    """Make a command of a plug-in's function.

    Args:
        plugin: Where the function is; its signature gives the options, its docstring the help.

    Returns:
        Typer's command.

    Raises:
        GrocoError: The function cannot be imported, or Typer cannot make options of its signature.
    """
    function = plugin.load()
    with plugin.blamed():
        alone = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
        alone.command(plugin.name.rpartition(".")[2], cls=Command, help=prose(function.__doc__ or ""))(function)
        command: Any = get_command(alone)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            # Its metavar says what it is; Typer would put the type behind it, as in "CKPT <list[Path]>".
            parameter.display_type_rich = lambda ctx: None
    return command


def prose(docstring: str) -> str:
    """A Google docstring up to its first section: the part that is written for whoever runs the command."""
    return re.split(r"\n\s*[A-Z][a-z]+:\n", docstring, maxsplit=1)[0]


def print_version(asked: bool) -> None:
    """Print groco's version and exit, if asked."""
    if asked:
        print(f"groco {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def groco(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, and where an error came from.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only warnings and errors.")] = False,
) -> None:
    """Learn image representations without labels by sorting, and measure them."""


def run(arguments: list[str]) -> int:
    """Run one command and say in a line what went wrong, if anything did.

    Typer could do this itself, but takes a worker's broken pipe or a truncated file's EOFError for the user's
    wish to stop, and ends without a word. Here they are bugs, and leave a traceback.

    Args:
        arguments: What was typed after `groco`.

    Returns:
        The exit code: 0, 1 (it went wrong while running), 2 (it was asked for wrongly) or 130 (Ctrl-C).
    """
    try:
        code = _invoked(arguments)
        sys.stdout.flush()  # what cannot be written is told here at the latest
    except GrocoError as error:
        console.detail("".join(traceback.format_exception(error.__cause__ or error)).rstrip())
        console.error(error.message, error.hint, error.label)
        return error.exit_code
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "groco")
        console.error(" ".join(error.format_message().split()).rstrip("."), f"see '{path} --help'")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        return 130
    return code


def _invoked(arguments: list[str]) -> int:
    """The exit code of a command that says its errors by raising them."""
    group = get_command(app)
    try:
        with group.make_context("groco", arguments) as context:
            group.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def complete() -> None:
    """Tell the shell what could be typed next; on a press of Tab, nothing else is said."""
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), suppress(GrocoError):
        app(prog_name="groco")


class Results(io.TextIOWrapper):
    """stdout; where it cannot be written to, that is told as other mistakes are.

    A reader who has gone is none (`reader_has_gone`).
    """

    def write(self, text: str) -> int:
        """As of any text file, but that it raises a GrocoError where the disk is full."""
        with self._told():
            return super().write(text)

    def flush(self) -> None:
        """Likewise."""
        with self._told():
            super().flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise GrocoError(
                f"cannot write to stdout: {error.strerror}", "make room there or choose another"
            ) from error


def drop_stdout() -> None:
    """Send what is still to come nowhere: Python flushes stdout once more when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def reader_has_gone() -> bool:
    """Whether nobody reads stdout any more, as behind `groco ... | head`."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))


def main() -> None:
    """What was typed, from its words to its exit code."""
    if os.environ.get("_GROCO_COMPLETE"):
        complete()
        sys.exit()
    if sys.stdout is None:
        console.error("stdout is closed", "type > FILE behind the command")
        sys.exit(1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        as_it_was = {
            name: getattr(sys.stdout, name) for name in ("encoding", "errors", "line_buffering", "write_through")
        }
        sys.stdout = Results(sys.stdout.buffer, **as_it_was)
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        if not reader_has_gone():
            raise
        drop_stdout()
        code = 1
    except GrocoError:  # `run` has told it
        drop_stdout()
    sys.exit(code)

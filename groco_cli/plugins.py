"""Finds groco's commands: functions that installed packages offer in the entry-point group "groco.plugins".

Listing them imports nothing, so that `groco --help` is quick and a broken package cannot spoil it: the help
is read from the source text. A command is imported when it runs, and only then can it fail.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from groco_cli.errors import GrocoError

GROUP = "groco.plugins"
BUILT_IN = "groco"


@dataclass(frozen=True)
class Plugin:
    """A command and the package that offers it.

    Args:
        name: What is typed after `groco`, with a dot for each space.
        target: The function's place, as "package.module:function".
        distribution: The installed package, such as "groco".
        version: That package's version.
    """

    name: str
    target: str
    distribution: str
    version: str

    @property
    def help(self) -> str:
        """The first line of the function's docstring, or why it cannot be read; nothing is imported."""
        module, _, function = self.target.partition(":")
        try:
            tree = ast.parse(_source_file(module).read_bytes())
        except Exception as error:
            return f"(cannot be read: {_in_one_line(error)})"
        docstrings = (
            ast.get_docstring(node) for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function
        )
        return (next(docstrings, None) or "").partition("\n")[0]

    def load(self) -> Callable[..., object]:
        """Import the function.

        Returns:
            The function that runs the command.

        Raises:
            GrocoError: It cannot be imported; the message names the package.
        """
        with self.blamed():
            function: Callable[..., object] = EntryPoint(self.name, self.target, GROUP).load()
        return function

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Lay whatever goes wrong inside at this plug-in's door.

        Raises:
            GrocoError: Something did, an attempt to exit included.
        """
        try:
            yield
        except (Exception, SystemExit) as error:
            raise GrocoError(
                f"{self.name!r} cannot be loaded from {self}: {_in_one_line(error)}",
                f"'groco -v {self.name.replace('.', ' ')}' shows where",
            ) from error

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def find_plugins() -> dict[str, list[Plugin]]:
    """Every command that an installed package offers, groco's own first.

    Returns:
        For each command's name the plug-ins that offer it. The first is the one that runs: groco's own where
        there is one, else that of the first package by name. The others are ignored.
    """
    found: dict[str, list[Plugin]] = {}
    for plugin in sorted(
        (Plugin(e.name, e.value, e.dist.name, e.dist.version) for e in entry_points(group=GROUP) if e.dist),
        key=lambda plugin: (plugin.distribution != BUILT_IN, plugin.distribution),
    ):
        found.setdefault(plugin.name, []).append(plugin)
    return found


def _source_file(module: str) -> Path:
    # find_spec of a dotted name would import the packages above the module: walk down to it instead.
    path, *below = module.split(".")
    spec = find_spec(path)
    for name in below:
        path += f".{name}"
        spec = spec and PathFinder.find_spec(path, spec.submodule_search_locations or [])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {module!r}")
    return Path(spec.origin)


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

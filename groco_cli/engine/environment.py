"""Settings from the environment: GROCO_BATCH_SIZE=512 is --batch-size 512, unless that is typed too."""

import dataclasses
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from groco_cli import console
from groco_cli.distributed.launch import STOP_FILE
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import UsageError, did_you_mean

_PREFIX = "GROCO_"
_OPTIONS = {"LR": "learning_rate", "NEGATIVES": "num_negatives", "GLOBAL_VIEWS": "views"}  # named unlike their settings
_NO_SETTINGS = {STOP_FILE}  # what groco tells the processes that it starts
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (lambda text: _SWITCH[text.lower()], "1 or 0"),
}


@dataclass(frozen=True)
class FromEnvironment:
    """What the environment says of a run's settings.

    Args:
        values: By setting; "recipe" is one.
        variables: Where each comes from.
    """

    values: Mapping[str, Any]
    variables: Mapping[str, str]

    @property
    def recipe(self) -> str | None:
        """The recipe, where one is named."""
        return self.values.get("recipe")

    @property
    def settings(self) -> dict[str, Any]:
        """All the others."""
        return {name: value for name, value in self.values.items() if name != "recipe"}

    def under(self, options: Mapping[str, Any]) -> "FromEnvironment":
        """What is left of it beside what was given on the command line (None: not given)."""
        return self.only([name for name in self.values if options.get(name) is None])

    def only(self, names: Collection[str]) -> "FromEnvironment":
        """What it says of some settings: those that a command has a use for."""
        left = [name for name in self.values if name in names]
        return FromEnvironment({n: self.values[n] for n in left}, {n: self.variables[n] for n in left})

    def announce(self) -> None:
        """Say which settings come from it, if any do."""
        if self.variables:
            console.note(f"settings   {', '.join(self.variables.values())} from the environment")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the variables in an error about a value that came from them; it names the option alone.

        Raises:
            UsageError: If there is one.
        """
        try:
            yield
        except UsageError as error:
            said = error.message.replace(":", " ").replace("=", " ").split()
            blamed = [
                variable
                for name, variable in self.variables.items()
                if {_option(name), _option(variable.removeprefix(_PREFIX)), name} & {w.rpartition(".")[2] for w in said}
            ]
            if blamed:
                error.message += f" ({', '.join(blamed)} in the environment)"
            raise


def from_environment(environment: Mapping[str, str]) -> FromEnvironment:
    """Read every variable that is called as a setting; an empty one counts as absent.

    Args:
        environment: Such as `os.environ`.

    Raises:
        UsageError: If one of groco's has no such setting, a value of another kind, or says the same as another.
    """
    kinds = _kinds()
    names = {name.upper(): name for name in kinds} | _OPTIONS
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _NO_SETTINGS or not text:
            continue
        name = names.get(variable.removeprefix(_PREFIX))
        if name is None:
            known = [_PREFIX + setting for setting in names]
            raise UsageError(f"{variable}: no such setting", did_you_mean(variable, known) or "unset it")
        if name in values:
            raise UsageError(f"{variable} and {variables[name]} are one setting", "unset one of them")
        values[name], variables[name] = _read(variable, text, kinds[name]), variable
    return FromEnvironment(values, variables)


def _kinds() -> dict[str, Any]:
    """The kind of each setting, by its name; of one that may be None, what it is otherwise."""
    hints = typing.get_type_hints(PretrainSettings)
    sections = [kind for kind in hints.values() if dataclasses.is_dataclass(kind)]
    settings = {name: kind for section in sections for name, kind in typing.get_type_hints(section).items()}
    return {name: _without_none(kind) for name, kind in ({"recipe": str} | settings).items()}


def _without_none(kind: Any) -> Any:
    choices = typing.get_args(kind)
    return next(choice for choice in choices if choice is not type(None)) if type(None) in choices else kind


def _read(variable: str, text: str, kind: Any) -> Any:
    several = typing.get_origin(kind) is tuple
    read, wanted = _READERS[typing.get_args(kind)[0] if several else kind]
    try:
        return tuple(read(word) for word in text.replace(",", " ").split()) if several else read(text.strip())
    except (ValueError, KeyError):
        kinds = f"{wanted.removeprefix('a ')}s" if several else wanted
        raise UsageError(f"{variable}={text}: not {kinds}", "correct or unset it") from None


def _option(name: str) -> str:
    return f"--{name.lower().replace('_', '-')}"

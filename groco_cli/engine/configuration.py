"""Settings from recipe, file and options, each overriding the one before; and back to a file."""

import dataclasses
import json
import shlex
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from groco_cli.engine.recipes import RECIPES, default_recipe
from groco_cli.engine.settings import ModelSettings, PretrainSettings, RunSettings
from groco_cli.errors import UsageError, did_you_mean

Overrides = Mapping[str, Mapping[str, Any]]  # section → name → value

# Where a run goes on and what is kept of it: no weight depends on these, so they may change when it is resumed. Images
# may lie elsewhere, if they are the same (`TrainingState`); and be skipped from now on, as none was bad before.
_PLACES = {"device", "compile", "output", "gpus", "processes", "nodes", "rdzv", "process_timeout", "log_to"}
_FREE = {
    "data": {"data", "data_root", "workers", "on_bad_image"},
    "run": {*_PLACES, "save_every", "keep", "milestones"},
}

# What a value should be, for people, and how TOML writes one where its setting has no default to show.
_KINDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "10"),
    float: ("a number", "0.5"),
    str: ("text", '"text"'),
    bool: ("true or false", "true"),
    tuple[float, ...]: ("a list of numbers", "[0.2, 1.0]"),
    tuple[str, ...]: ("a list of texts", '["tensorboard"]'),
}


def resolve(recipe: str | None, file: Path | None, options: Overrides) -> PretrainSettings:
    """The settings of a run: options over file over recipe.

    Where one of them takes another loss or backbone than what it overrides, that one's settings of the old go too.

    Args:
        recipe: `--recipe`; where None, the file's, else the usual one for the data.
        file: `--config`, a TOML file such as a run's settings.toml.
        options: What was given on the command line, by section.

    Raises:
        UsageError: For an unknown recipe, an unreadable file, an unknown key or a value of the wrong kind.
    """
    from_file = read_toml(file) if file else {}
    named = recipe or from_file.get("recipe")
    if named is None:
        given = options.get("data", {}).get("data") or from_file.get("data", {}).get("data") or "digits"
        named = default_recipe(given)
    if named not in RECIPES:
        hint = did_you_mean(named, RECIPES) or f"there are {', '.join(RECIPES)}"
        raise UsageError(f"--recipe {named}: no such recipe", hint)
    settings = RECIPES[named].settings
    sections = {key: value for key, value in from_file.items() if key != "recipe"}
    for overrides, where in ((sections, f"--config {file}"), (options, "options")):
        settings = _without_foreign(override(settings, overrides, where), settings, overrides)
    return settings


def resume_settings(file: Path, options: Overrides) -> PretrainSettings:
    """The settings of a run that is resumed: its own, but where it runs, reads, logs to and what it keeps may change.

    Args:
        file: The run's settings.toml.
        options: What was given on the command line, by section.

    Raises:
        UsageError: If an option contradicts the run's settings.
    """
    settings = resolve(None, file, {})
    resumed = override(settings, _launched_anew(options), "options")
    wanted = binding(resumed)
    for name, before in binding(settings).items():
        if wanted[name] != before:
            raise UsageError(
                f"--resume: the run has {name} = {before}, not {wanted[name]}",
                f"leave the option out, or begin a new run with --config {shlex.quote(str(file))}",
            )
    return resumed


def binding(settings: PretrainSettings) -> dict[str, Any]:
    """What a resumed run must have in common with itself before, by "section.name"."""
    sections = dataclasses.asdict(settings)
    del sections["recipe"]
    return {
        f"{section}.{name}": value
        for section, values in sections.items()
        for name, value in values.items()
        if name not in _FREE.get(section, ())
    }


def by_section(options: Mapping[str, Any]) -> Overrides:
    """What was given on the command line, by the section that has a setting of that name.

    Args:
        options: Values by setting; None where nothing was given.

    Raises:
        KeyError: If no section has such a setting.
    """
    defaults = PretrainSettings()
    sections = {
        name.name: section.name
        for section in dataclasses.fields(defaults)
        if section.name != "recipe"
        for name in dataclasses.fields(getattr(defaults, section.name))
    }
    given: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if value is not None:
            plain = str(value) if isinstance(value, Path) else tuple(value) if isinstance(value, list) else value
            given.setdefault(sections[name], {})[name] = plain
    return given


def override(settings: PretrainSettings, overrides: Overrides, where: str) -> PretrainSettings:
    """Settings with some values replaced, checked by name and kind.

    Args:
        settings: The settings to start from.
        overrides: Values by section and name.
        where: What to call their source in an error.
    """
    sections: dict[str, Any] = {}
    for section, values in overrides.items():
        current = getattr(settings, section, None)
        if not dataclasses.is_dataclass(current):
            known = [field.name for field in dataclasses.fields(settings) if field.name != "recipe"]
            raise UsageError(
                f"{where}: no section [{section}]", did_you_mean(section, known) or f"there are {', '.join(known)}"
            )
        if not isinstance(values, Mapping):
            raise UsageError(f"{where}: {section} is a section", f"write [{section}] and its keys below")
        checked = {
            name: _checked(name, value, type(current), f"{where}, [{section}]") for name, value in values.items()
        }
        sections[section] = replace(current, **checked)  # type: ignore[type-var]
    return replace(settings, **sections)


def to_toml(settings: PretrainSettings) -> str:
    """The settings as TOML, as `--config` reads them."""
    return tomli_w.dumps(
        dataclasses.asdict(settings, dict_factory=lambda pairs: {k: v for k, v in pairs if v is not None})
    )


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: If it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}", "give a settings.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is no TOML: {error}", "compare it with a run's settings.toml") from error


def _without_foreign(settings: PretrainSettings, before: PretrainSettings, given: Overrides) -> PretrainSettings:
    """Settings without what was there before another loss or backbone was given, and does not belong to that."""
    loss, model = settings.loss, settings.model
    if loss.loss != before.loss.loss:
        unset: dict[str, Any] = dict.fromkeys(set(loss.foreign) - given["loss"].keys())
        loss = replace(loss, **unset)
    if model.arch != before.model.arch and "attention_heads" not in given["model"]:
        model = replace(model, attention_heads=ModelSettings.attention_heads)
    return replace(settings, loss=loss, model=model)


def _launched_anew(options: Overrides) -> Overrides:
    """Options of a resumed run: where they say what it runs on, they say all of it, as those of a new run would.

    Else `--gpus 1` would contradict the `--processes 2` that the run was begun with.
    """
    run = dict(options.get("run", {}))
    if run.keys() & {"device", "gpus", "processes"}:
        run = {name: getattr(RunSettings, name) for name in ("device", "gpus", "processes", "nodes")} | run
    if run.get("nodes") == 1:
        run = {"rdzv": RunSettings.rdzv} | run
    return {**options, "run": run}


def _checked(name: str, value: Any, section: type, where: str) -> Any:
    """A value as its setting has it."""
    kinds = typing.get_type_hints(section)
    if name not in kinds:
        hint = did_you_mean(name, kinds) or f"there are {', '.join(kinds)}"
        raise UsageError(f"{where}: no setting {name}", hint)
    kind = kinds[name]
    if type(None) in typing.get_args(kind):
        kind = next(choice for choice in typing.get_args(kind) if choice is not type(None))
    converted = _converted(value, kind)
    if converted is None:
        wanted, example = _KINDS[kind]
        default = getattr(section, name)
        if default not in (None, "", ()):
            example = json.dumps(default)  # which TOML writes in the same way
        raise UsageError(f"{where}: {name} = {value!r} should be {wanted}", f"write it like {name} = {example}")
    return converted


def _converted(value: Any, kind: Any) -> Any:
    """A value as one of a kind; None where it is none."""
    if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        elements = [_converted(element, typing.get_args(kind)[0]) for element in value]
        return None if None in elements else tuple(elements)
    if kind is float and type(value) is int:
        return float(value)
    if kind is str and type(value) is int:
        return str(value)  # save_every = 1
    return value if type(value) is kind else None

"""What settings are checked for; the error names the option and says what to type."""

from math import inf, isfinite

from groco_cli.errors import UsageError, did_you_mean


def one_of(option: str, value: str, choices: object) -> None:
    """Refuse what is no choice, with the nearest that is."""
    names = list(choices)  # type: ignore[call-overload]
    if value not in names:
        raise UsageError(
            f"{option} {value}: no such choice", did_you_mean(value, names) or f"type one of {', '.join(names)}"
        )


def at_least(option: str, value: float, least: float) -> None:
    """Refuse what is less, infinite or no number."""
    if not least <= value < float("inf"):
        raise UsageError(f"{option} {value} is out of range", f"type {least:g} or more")


def positive(option: str, value: float) -> None:
    """Refuse zero, what is negative, infinite or no number."""
    if not 0 < value < float("inf"):
        raise UsageError(f"{option} {value} is out of range", "type a positive number")


def between(option: str, value: float, least: float, most: float) -> None:
    """Refuse what is less, more or no number."""
    if not least <= value <= most:
        raise UsageError(f"{option} {value} is out of range", f"type a number from {least} to {most}")


def span(option: str, values: tuple[float, ...] | None, usual: str, *, most: float = 1.0) -> None:
    """Refuse what is not a smallest and a largest value, each in (0, most] and finite; propose the usual ones."""
    if values is not None and not (len(values) == 2 and 0 < values[0] <= values[1] <= most and isfinite(values[1])):
        raise UsageError(f"{option} {' '.join(map(str, values))} is out of range", f"type {option} {usual}")


def in_turn(option: str, values: tuple[float, ...] | None, usual: str) -> None:
    """Refuse probabilities that are none, and a list without any, which options cannot give; propose the usual ones."""
    if values == ():
        raise UsageError(f"{option} has no value", f"write one for all views or one for each, such as {usual}")
    for value in values or ():
        between(option, value, 0, 1)


def channels(name: str, values: tuple[float, ...], usual: tuple[float, ...], *, least: float) -> None:
    """Refuse what is not a number for each of three channels, each above `least`; only a file can set it."""
    if len(values) != len(usual) or not all(least < value < inf for value in values):
        wanted = f"{len(usual)} {'positive ' * (least == 0)}numbers, one for each channel"
        raise UsageError(f"{name} = {list(values)} should be {wanted}", f"write it like {name} = {list(usual)}")

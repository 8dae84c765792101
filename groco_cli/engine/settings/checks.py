"""What several settings are checked for; the error names the option and says what to type."""

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


def shares(option: str, values: tuple[float, ...] | None, usual: str) -> None:
    """Refuse what is not a smallest and a largest share, each in (0, 1]; propose the usual ones."""
    if values is not None and not (len(values) == 2 and 0 < values[0] <= values[1] <= 1):
        raise UsageError(f"{option} {' '.join(map(str, values))} is out of range", f"type {option} {usual}")


def channels(name: str, values: tuple[float, ...], usual: tuple[float, ...], above: float = float("-inf")) -> None:
    """Refuse what is not a number for each of three channels, all above a bound; propose the usual ones."""
    if not (len(values) == 3 and all(above < value < float("inf") for value in values)):
        raise UsageError(f"[views] {name} = {[*values]} is out of range", f"write it like {name} = {[*usual]}")

"""How often something is done: every so many epochs, steps or minutes, or whichever of several comes first."""

import re
from dataclasses import dataclass
from typing import Self

from groco_cli.errors import UsageError

_UNITS = {
    "epochs": ("", "e", "ep", "epoch", "epochs"),
    "steps": ("step", "steps", "it", "iteration", "iterations"),
    "minutes": ("m", "min", "mins", "minute", "minutes"),
    "hours": ("h", "hour", "hours"),
}


@dataclass(frozen=True)
class Every:
    """An interval.

    Args:
        count: How many, at least 1.
        unit: Of what: "epochs", "steps" or "minutes".
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str, option: str) -> Self:
        """Read what was typed.

        Args:
            text: A whole number and its unit, such as "500steps", "10min" or "2h"; epochs where there is none.
            option: What to call it in an error.

        Raises:
            UsageError: If it is something else.

        >>> Every.parse("2 hours", "--save-every")
        Every(count=120, unit='minutes')
        """
        found = re.fullmatch(r"0*([1-9]\d*)\s*([a-z]*)", text.strip().lower(), re.ASCII)
        unit = next((unit for unit, names in _UNITS.items() if found and found[2] in names), None)
        if found is None or unit is None:
            raise UsageError(
                f"{option} {text}: no interval", f"type {option} 1 (epochs), 500steps, 10min, or several: 1,30min"
            )
        count = int(found[1])
        return cls(60 * count, "minutes") if unit == "hours" else cls(count, unit)

    @classmethod
    def parse_several(cls, text: str, option: str) -> tuple[Self, ...]:
        """Read intervals with commas between them; see `parse`.

        >>> Every.parse_several("1,30min", "--save-every")
        (Every(count=1, unit='epochs'), Every(count=30, unit='minutes'))
        """
        return tuple(cls.parse(part, option) for part in text.split(","))

    def due(self, step: int, per_epoch: int, seconds: float) -> bool:
        """Whether it is time.

        Args:
            step: Steps done so far.
            per_epoch: Steps an epoch.
            seconds: Time since it was done last.
        """
        if self.unit == "minutes":
            return seconds >= 60 * self.count
        return step % (self.count if self.unit == "steps" else self.count * per_epoch) == 0

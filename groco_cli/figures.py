"""Figures by matplotlib, written whole or not at all, and never with its own warnings."""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from groco_cli.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figure(figure: "Figure", place: Path) -> str:
    """Write a figure in the format that its ending says.

    Args:
        figure: The figure; what users named in it is drawn with `parse_math=False`, or "$" would begin a formula.
        place: Where to.

    Returns:
        The letters that matplotlib's font lacks, Chinese ones for instance, which are drawn as boxes; "" for none.

    Raises:
        GrocoError: If it cannot be written.
    """
    with atomic_write(place) as temporary, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # else each is given once a process
        figure.savefig(temporary, dpi=150)
    lacking = (re.match(r"Glyph (\d+) ", str(warning.message)) for warning in caught)
    return "".join(dict.fromkeys(chr(int(number[1])) for number in lacking if number))

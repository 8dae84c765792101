"""Images that cannot be decoded: how many are too many, and what is said of one, or where all are gone."""

import math

from groco_cli.data.sources import Source
from groco_cli.data.workers import BadImage
from groco_cli.errors import GrocoError


def too_many(bad: float, images: int) -> bool:
    """Whether more than one image in a hundred is bad: then it is not single files, but something is wrong."""
    return bad > max(1, images / 100)


def beyond_reason(so_far: int, of_epoch: int, images: int, processes: int) -> tuple[int, int] | None:
    """How many of how many are bad, if too many are; of one of several processes none knows what the others met.

    Args:
        so_far: Bad ones that this process met in any epoch.
        of_epoch: Those that it met in this epoch.
        images: How many there are.
        processes: Among which each epoch divides them anew.
    """
    part = images // processes
    by_chance = 3 * math.sqrt(part / 100 * (1 - part / images))  # three standard deviations of one in a hundred
    for bad, among, spare in ((so_far, images, 0.0), (of_epoch, part, by_chance)):
        if too_many(bad - spare, among):
            return bad, among
    return None


def cannot_decode(source: Source, bad: BadImage, hint: str) -> GrocoError:
    """The error for a bad image; or for all of them, where they are gone."""
    return gone(source) or GrocoError(f"cannot decode {bad.name}: {bad.reason}", hint)


def gone(source: Source) -> GrocoError | None:
    """The error for images of which none is there any longer; None where some are."""
    folder = source.lost()
    if not folder:
        return None
    return GrocoError(
        f"the images in {folder} are gone", "once they are back, type the same again, a run with --resume"
    )

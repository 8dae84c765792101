"""What is searched: a ground truth and the files of its pictures.

The published sets lie as their download leaves them, ROOT/roxford5k/jpg/*.jpg beside ROOT/roxford5k/gnd_roxford5k.pkl;
any other set is a folder of pictures and a ground truth of the same form.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from groco_cli.data.sources.base import IMAGE_ENDINGS
from groco_cli.errors import GrocoError, UsageError, did_you_mean
from groco_cli.evaluation.ground_truth import GroundTruth, file_name, load_ground_truth

PUBLISHED = ("roxford5k", "rparis6k")
_NAMED_AT_MOST = 20  # files in one line


@dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    """Pictures to search, and what should be found.

    Args:
        name: For people.
        ground_truth: The right answers.
        images: The database's files, in the order of `imlist`.
        queries: The queries' files, in the order of `qimlist`.
        distractors: Further files of the database, always wrong.
    """

    name: str
    ground_truth: GroundTruth
    images: tuple[Path, ...]
    queries: tuple[Path, ...]
    distractors: tuple[Path, ...] = ()

    @property
    def database(self) -> tuple[Path, ...]:
        """Everything that is searched; its order numbers it."""
        return self.images + self.distractors


def open_published(name: str, root: Path) -> RetrievalSet:
    """Open roxford5k or rparis6k.

    Raises:
        UsageError: For another name, or if the set is not there.
        GrocoError: If pictures are missing, or the ground truth is damaged.
    """
    if name not in PUBLISHED:
        hint = did_you_mean(name, PUBLISHED) or f"type {' or '.join(PUBLISHED)}, or --images with --ground-truth"
        raise UsageError(f"--dataset {name}: no such set", hint)
    folder, truth = root / name / "jpg", root / name / f"gnd_{name}.pkl"
    for place in (folder, truth):
        if not _holds(place.exists):
            raise UsageError(
                f"--dataset {name}: there is no {place}",
                f"put the pictures in {folder} and the ground truth in {truth}, or give their place with --data-root; "
                "docs/retrieve.md says where they come from",
            )
    return open_images(folder, truth, name=name)


def open_images(folder: Path, truth: Path, *, name: str = "") -> RetrievalSet:
    """Open a folder of pictures with a ground truth.

    Args:
        folder: The pictures.
        truth: The ground truth, .pkl or .json.
        name: For people; the folder where empty.

    Raises:
        UsageError: If folder or ground truth are not there.
        GrocoError: If pictures that the ground truth names are missing, or it is damaged.
    """
    if not _holds(folder.is_dir):
        raise UsageError(f"--images {folder}: no such folder", "give the folder that holds the pictures")
    ground_truth = load_ground_truth(truth)
    images, queries = _files(folder, ground_truth.imlist), _files(folder, ground_truth.qimlist)
    _check_present((*images, *queries), folder, truth)
    return RetrievalSet(name=name or str(folder), ground_truth=ground_truth, images=images, queries=queries)


def with_distractors(data: RetrievalSet, folder: Path) -> RetrievalSet:
    """A set with all pictures below a folder added to its database.

    Raises:
        UsageError: If there is no such folder, no picture in it, or one that is in the set already: a right answer
            would count as a wrong one.
    """
    distractors = list_pictures(folder, "--distractors")
    known = {_identity(path) for path in (*data.images, *data.queries)}
    again = [str(path.relative_to(folder)) for path in distractors if _identity(path) in known]
    if again:
        raise UsageError(
            f"--distractors {folder}: {len(again):,} of its pictures are in {data.name} already: {_listed(again)}",
            "give a folder of other pictures",
        )
    return replace(data, distractors=distractors)


def _identity(path: Path) -> tuple[int, int] | Path:
    """What a file has in common with itself by another path; the path, where it cannot be asked."""
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def list_pictures(folder: Path, option: str) -> tuple[Path, ...]:
    """All picture files below a folder, sorted.

    Args:
        folder: The folder.
        option: Where its name was given.

    Raises:
        UsageError: If there is no such folder, or no picture in it.
    """
    if not _holds(folder.is_dir):
        raise UsageError(f"{option} {folder}: no such folder", "give a folder of pictures")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.name[0] != ".")
    if pictures := tuple(sorted(found)):
        return pictures
    raise UsageError(
        f"{option} {folder}: no picture in it", f"it should hold files ending in {', '.join(IMAGE_ENDINGS)}"
    )


def _holds(test: Callable[[], bool]) -> bool:
    """What is asked of a path; not so where the path is too long, or leads through a closed folder."""
    try:
        return test()
    except OSError:
        return False


def _files(folder: Path, names: Iterable[str]) -> tuple[Path, ...]:
    return tuple(folder / file_name(name) for name in names)


def _check_present(files: tuple[Path, ...], folder: Path, truth: Path) -> None:
    wanted = list(dict.fromkeys(files))
    missing = [str(path.relative_to(folder)) for path in wanted if not _holds(path.is_file)]
    if not missing:
        return
    raise GrocoError(
        f"{len(missing):,} of the {len(wanted):,} pictures that {truth} names are not in {folder}: {_listed(missing)}",
        "'groco -v retrieve …' lists them all"
        if len(missing) > _NAMED_AT_MOST
        else "put them there, or correct the ground truth",
    ) from FileNotFoundError("\n".join(missing))


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")

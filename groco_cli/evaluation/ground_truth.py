"""The ground truth of a retrieval set: which images answer which query, and how hard they are to find.

The form is that of the revisited Oxford and Paris sets (Radenović et al., 2018; github.com/filipradenovic/revisitop):
`imlist` names the database, `qimlist` the queries, and `gnd` says for each query its box and which images of the
database are easy, hard, or neither right nor wrong (junk). The published files are pickles that need no class and no
function to be read, so none is ever looked up here: a file that asks for one is refused. JSON of the same form is read
too, and may name images instead of numbering them.
"""

import io
import json
import math
import pickle
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from groco_cli.data.sources.base import IMAGE_ENDINGS
from groco_cli.errors import GrocoError, UsageError

KINDS = ("easy", "hard", "junk")
Box = tuple[float, float, float, float]
_HINT = "docs/retrieve.md shows the form"


@dataclass(frozen=True, kw_only=True)
class QueryTruth:
    """What is known of one query.

    Args:
        bbx: Left, top, right, bottom of what is asked for in the query's picture, pixels; None for all of it.
        easy: Images of the database, by number from 0, that show it plainly.
        hard: Those that show it badly.
        junk: Those that are neither right nor wrong.
    """

    bbx: Box | None
    easy: tuple[int, ...]
    hard: tuple[int, ...]
    junk: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The images that are searched, the queries, and the right answers.

    Args:
        imlist: Names of the database's images; their order numbers them.
        qimlist: Names of the queries' images.
        gnd: What is known of each query, in the order of `qimlist`.
    """

    imlist: tuple[str, ...]
    qimlist: tuple[str, ...]
    gnd: tuple[QueryTruth, ...]


def load_ground_truth(path: str | Path) -> GroundTruth:
    """Read a ground truth, as JSON where the file is called so, else as a pickle; nothing in it is executed.

    Args:
        path: A .json, or a pickle of the published form (gnd_roxford5k.pkl).

    Raises:
        UsageError: If there is no such file.
        GrocoError: If it cannot be read, asks for code, or contradicts itself.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"no ground truth {path}", "name a .pkl or .json") from error
    except OSError as error:
        raise GrocoError(f"cannot read {path}: {error.strerror or error}", "give a file that you may read") from error
    stored = _from_json(content, path) if path.suffix.lower() == ".json" else _from_pickle(content, path)
    try:
        return _ground_truth(stored)
    except (ValueError, OverflowError) as error:  # the latter of whole numbers that no float can hold
        raise GrocoError(f"{path}: {error}", _HINT) from error


def file_name(name: str) -> str:
    """The file that a name stands for: names that end like an image are files, others lack their .jpg (as published).

    >>> file_name("all_souls_000013"), file_name("cats/7.png")
    ('all_souls_000013.jpg', 'cats/7.png')
    """
    return name if PurePath(name).suffix.lower() in IMAGE_ENDINGS else f"{name}.jpg"


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dictionaries, strings and numbers; whatever would need code is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise _AsksForCodeError(f"{module_name}.{global_name}")

    def persistent_load(self, pid: Any, /) -> Any:
        raise _AsksForCodeError("a persistent object")


class _AsksForCodeError(Exception):
    """A pickle names something outside itself."""


def _from_pickle(content: bytes, path: Path) -> object:
    try:
        return _PlainUnpickler(io.BytesIO(content)).load()
    except _AsksForCodeError as error:
        raise GrocoError(
            f"{path} is refused: a ground truth holds lists and numbers, this pickle asks for {str(error)[:80]!r}",
            "nothing of it was executed; take the published file, or write JSON",
        ) from error
    except Exception as error:  # damaged pickles end in whatever the opcodes met: IndexError, MemoryError, …
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise GrocoError(f"{path} is no pickle, or a damaged one ({reason})", "JSON must end in .json") from error


def _from_json(content: bytes, path: Path) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GrocoError(f"{path} is no JSON ({error})", _HINT) from error


def _ground_truth(stored: object) -> GroundTruth:
    if not isinstance(stored, Mapping) or not stored.keys() >= {"imlist", "qimlist", "gnd"}:
        raise ValueError("imlist, qimlist and gnd are wanted")
    imlist, qimlist = _names(stored["imlist"], "imlist"), _names(stored["qimlist"], "qimlist")
    files = [file_name(name) for name in imlist]
    numbers = {file: number for number, file in enumerate(files)}
    if len(numbers) < len(imlist):
        raise ValueError(f"imlist names {imlist[files.index(_most_frequent(files))]!r} twice")
    gnd = stored["gnd"]
    if not isinstance(gnd, list | tuple) or len(gnd) != len(qimlist):
        raise ValueError(f"gnd must be a list of {len(qimlist)}, one for each name in qimlist")
    truths = []
    for name, entry in zip(qimlist, gnd, strict=True):
        try:
            truths.append(_query_truth(entry, numbers))
        except ValueError as error:
            raise ValueError(f"query {name!r}: {error}") from error
    asked = [(name, truth.bbx) for name, truth in zip(qimlist, truths, strict=True)]
    if len(set(asked)) < len(asked):
        raise ValueError(f"qimlist names {_most_frequent(asked)[0]!r} twice, with the same bbx")
    return GroundTruth(imlist=imlist, qimlist=qimlist, gnd=tuple(truths))


def _names(stored: object, key: str) -> tuple[str, ...]:
    if not isinstance(stored, list | tuple) or not stored:
        raise ValueError(f"{key} must be a list of names")
    for name in stored:
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"{key} holds {_shown(name)}, which is no name")
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(f"{key} names {name!r}, outside the folder of images")
    return tuple(stored)


def _query_truth(entry: object, numbers: Mapping[str, int]) -> QueryTruth:
    if not isinstance(entry, Mapping):
        raise ValueError("its entry in gnd must hold easy, hard and junk")
    unknown = sorted(str(key) for key in entry.keys() - {"bbx", *KINDS})
    if unknown:
        raise ValueError(f"{unknown[0][:80]!r} is none of bbx, easy, hard, junk")
    kinds = {kind: _image_numbers(entry.get(kind, []), kind, numbers) for kind in KINDS}
    listed = [number for kind in KINDS for number in kinds[kind]]
    if len(set(listed)) < len(listed):
        raise ValueError(f"image {_most_frequent(listed)} stands twice in easy, hard and junk")
    bbx = None if entry.get("bbx") is None else _box(entry["bbx"])
    return QueryTruth(bbx=bbx, **kinds)


def _image_numbers(stored: object, kind: str, numbers: Mapping[str, int]) -> tuple[int, ...]:
    if not isinstance(stored, list | tuple):
        raise ValueError(f"{kind} must be a list of images")
    found = []
    for image in stored:
        number = numbers.get(file_name(image)) if isinstance(image, str) else image
        if number is None and isinstance(image, str):
            raise ValueError(f"{kind} holds {_shown(image)}; no such name in imlist")
        if type(number) is not int or not 0 <= number < len(numbers):
            raise ValueError(f"{kind} holds {_shown(image)}; imlist has images 0 to {len(numbers) - 1}")
        found.append(number)
    return tuple(found)


def _box(stored: object) -> Box:
    numbers = stored if isinstance(stored, list | tuple) else ()
    if len(numbers) != 4 or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
        raise ValueError("bbx must be four numbers: left, top, right, bottom")
    left, top, right, bottom = (float(x) for x in numbers)
    if not (left < right and top < bottom):
        raise ValueError(f"bbx {list(numbers)} is empty: left, top, right, bottom are wanted")
    return left, top, right, bottom


def _most_frequent(listed: Iterable[Hashable]) -> Any:
    return Counter(listed).most_common(1)[0][0]


def _shown(value: object) -> str:
    return repr(value)[:80] if isinstance(value, str | int | float) else f"a {type(value).__name__}"

"""What a sample of a shard is labelled: `KEY.cls`, `KEY.metadata.pyd` or `KEY.json`.

`.metadata.pyd` is the layout of the authors' released code: a pickle of {"cls": number, "wnid": name}. It is read by an
Unpickler that finds no global, so nothing in it can run.
"""

import io
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

from groco_cli.data.sources.labels import NO_NAME, NO_NUMBER

_JSON_NAMES = ("label", "cls", "class")
Label = tuple[int, str]
"""Number and name of a class; NO_NUMBER and NO_NAME where there is none."""
UNLABELLED: Label = (NO_NUMBER, NO_NAME)


# The C one grows its memo to whatever place a pickle names, terabytes if need be; this one keeps a dict.
class _PlainUnpickler(pickle._Unpickler):
    """Reads numbers, texts and containers of them; refuses every global and persistent object."""

    # A bytearray is made in its full length, terabytes again, before what should be in it is read.
    dispatch: ClassVar = {
        code: read for code, read in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object from outside, which is refused")

    def get_extension(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError("it asks for a registered object, which is refused")


def unpickle_plain(content: bytes) -> Any:
    """Unpickle what consists of numbers, texts, tuples, lists, sets and dictionaries alone.

    Raises:
        ValueError: If it asks for anything else, or is damaged.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # of a damaged pickle it raises whatever it trips over
        raise ValueError(f"no plain pickle: {error or type(error).__name__}") from error


def _from_cls(content: bytes) -> Label:
    text = content.decode("ascii").strip()
    if not text.isdigit():
        raise ValueError(f"{text[:20]!r} is no number")
    return _number(int(text)), NO_NAME


def _from_json(content: bytes) -> Label:
    try:
        fields = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested beyond reason") from error
    if not isinstance(fields, Mapping):
        return _from_value(fields)
    value = next((fields[name] for name in _JSON_NAMES if fields.get(name) is not None), None)
    return UNLABELLED if value is None else _from_value(value)


def _from_metadata(content: bytes) -> Label:
    fields = unpickle_plain(content)
    if not isinstance(fields, dict) or "cls" not in fields:
        raise ValueError("no dictionary with cls")
    number, _ = _from_value(fields["cls"])
    return number, str(fields.get("wnid", NO_NAME))


def _from_value(value: Any) -> Label:
    if isinstance(value, str) and value:
        return NO_NUMBER, value
    if type(value) is not int:
        raise ValueError(f"{value!r} is neither a number nor a name")
    return _number(value), NO_NAME


def _number(value: int) -> int:
    if not 0 <= value < 2**63:
        raise ValueError(f"{value} cannot be a label")
    return value


LABEL_READERS: dict[str, Callable[[bytes], Label]] = {
    "cls": _from_cls,
    "metadata.pyd": _from_metadata,
    "json": _from_json,
}
"""By what follows a key's dot; where a sample has several, the first here that holds a label."""

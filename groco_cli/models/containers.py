"""Open a checkpoint of any kind without running anything that is in it.

A pickle is a small program: what it names it may call. So files are told apart by their first bytes, and

- safetensors hold no program;
- files of `torch.save`, the zip and the older ("legacy") kind, go through `torch.load(weights_only=True)`. Its
  unpickler is torch's own, not Python's: it never imports what a file names, but looks the name up in a table of
  tensors' constructors, and refuses the file where it is not there;
- every other pickle is refused unread.

Released checkpoints hold a few things besides tensors, such as the command's arguments (DINO) or NumPy's scalars. For
those names alone, `torch.serialization.safe_globals` puts a class of ours into the table that takes what it is given
and does nothing. Nothing falls back to Python's unpickler, for any file.
"""

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

_ZIP = b"PK\x03\x04"
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch.serialization.MAGIC_NUMBER
_PICKLE = b"\x80"  # protocol 2 and above
_SEARCHED = 1 << 20  # bytes of a refused pickle that are searched for its origin


class CheckpointError(ValueError):
    """A checkpoint cannot be read.

    Args:
        message: What is wrong with it, naming the file.
        hint: What to do instead.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class _Ignored:
    """Stands for an object that is no weight: it takes whatever a file makes it of, and does nothing with it."""

    def __init__(self, *ignored: object) -> None:
        pass

    def __setstate__(self, ignored: object) -> None:
        pass


_LIGHTNING = (
    "lightning_fabric.utilities.data",
    "lightning.fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
)
# What checkpoints hold besides weights, by the names in their pickles.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *[
        (_Ignored, name)
        for name in (
            "argparse.Namespace",  # DINO, VICReg: the command's arguments
            "numpy.core.multiarray.scalar",  # epochs, losses and accuracies
            "numpy._core.multiarray.scalar",
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray._reconstruct",
            "numpy.dtype",
            "numpy.ndarray",
            "pathlib.PosixPath",
            "pathlib.WindowsPath",
            "pathlib._local.PosixPath",
            "pathlib._local.WindowsPath",
            "omegaconf.dictconfig.DictConfig",  # settings of Lightning modules
            "omegaconf.listconfig.ListConfig",
            "omegaconf.base.ContainerMetadata",
            "omegaconf.base.Metadata",
            "omegaconf.nodes.AnyNode",
            "collections.defaultdict",
            "typing.Any",
            "builtins.bool",
            "builtins.dict",
            "builtins.float",
            "builtins.int",
            "builtins.list",
            "builtins.str",
        )
    ],
    *[(dict, f"{module}.AttributeDict") for module in _LIGHTNING],  # a dictionary by another name
]


def is_safetensors(path: Path) -> bool:
    """Whether a file is to be opened as safetensors, by its first bytes, or its name where they say nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read, or is no checkpoint that is safe to open.
    """
    start = _first_bytes(path, 16)
    if start.startswith((_ZIP, _LEGACY)):
        return False
    if start[8:9] == b"{" or path.suffix == ".safetensors":  # the length of the header, then the header
        return True
    if start.startswith(_PICKLE):
        raise _refused_pickle(path)
    raise CheckpointError(
        f"{path} is no checkpoint: neither safetensors nor a file of torch.save", "it may be a page or a text instead"
    )


def open_safetensors(path: Path) -> safe_open:
    """Open a safetensors file; its tensors are read when asked for.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is truncated, or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({error})") from error


def read_pickled(path: Path) -> Mapping[Any, Any]:
    """Read a file of `torch.save`, its tensors on the CPU; whatever is neither tensor nor plain data is left out.

    Raises:
        CheckpointError: If the file asks for anything to be called that is not known to be harmless, is damaged, or
            holds no dictionary.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")  # about the pickle's protocol: what cannot be read is an error already
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged program can go wrong in any way
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content


def _first_bytes(path: Path, count: int) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    asked = re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error))
    if asked:
        return CheckpointError(
            f"{path} asks for {asked[1]} when it is read: refused, and nothing of it was run",
            "give a file that holds weights alone",
        )
    if "TorchScript" in str(error):
        return CheckpointError(f"{path} is a TorchScript program", "give the weights that it was made of")
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    why = lines[0] if "Weights only load failed" not in lines[0] else "its pickle cannot be followed"
    return CheckpointError(f"{path} is truncated or damaged ({why})", "fetch it again")


def _refused_pickle(path: Path) -> CheckpointError:
    if b"byol" in _first_bytes(path, _SEARCHED):
        # dill of `_ByolExperimentState`, deepmind-research/byol/byol_experiment.py
        return CheckpointError(
            f"{path} is a pickle of BYOL's JAX code, which could run anything: refused unread",
            "convert it with github.com/ajtejankar/byol-convert or github.com/chigur/byol-convert, and give the result",
        )
    return CheckpointError(
        f"{path} is a plain pickle, which could run anything: refused unread",
        "give safetensors, or a file of torch.save that holds weights alone",
    )

"""Checkpoints in and out: groco's safetensors, which need no other file, and those that others have released.

In groco's, tensors are named "encoder.…" (the backbone's own names behind it) and "projector.…"; the metadata says
everything else, as one JSON object under "groco". For the others' see `containers` (opening them safely), `released`
(whose they are) and `architecture` (which backbone); `export` gives weights back to timm and torchvision.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save
from torch import Tensor

from groco_cli.models.architecture import identify, mismatch
from groco_cli.models.containers import CheckpointError, is_safetensors, open_safetensors, read_pickled
from groco_cli.models.encoder import Encoder, EncoderMetadata, create_encoder
from groco_cli.models.released import METHODS, PLAIN, Release, find_encoder
from groco_cli.models.vit_names import in_names_of

if TYPE_CHECKING:
    from groco_cli.models.export import Exported

_KEY = "groco"
_LAYOUT = "layout"


def save_checkpoint(path: Path, encoder: Encoder, heads: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write an encoder, its metadata, and the state of heads such as the projector.

    Args:
        path: Where to; written straight, so give a temporary path (`files.atomic_write`).
        encoder: The encoder; its `metadata` are written with it.
        heads: State dictionaries by name.

    Raises:
        OSError: If it cannot be written.
    """
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.backbone.state_dict().items()}
    for head, state in heads.items():
        tensors |= {f"{head}.{name}": tensor for name, tensor in state.items()}
    metadata = dataclasses.asdict(encoder.metadata) | {"feature_dim": encoder.feature_dim}
    _write(path, tensors, metadata)


def read_metadata(path: Path) -> EncoderMetadata:
    """A checkpoint's metadata, without its tensors.

    Raises:
        ValueError: If the file is truncated, or not one of groco's.
    """
    with open_safetensors(path) as file:
        stored = file.metadata()
    if not stored or _KEY not in stored:
        raise CheckpointError(f"{path} is a safetensors file, but not one of groco's")
    return _metadata(path, stored)


def load_encoder(path: str | Path, *, method: str = "") -> Encoder:
    """Read an encoder, on the CPU and in evaluation mode.

    Args:
        path: A groco checkpoint, or a released one of those in `groco_cli.models.released`.
        method: What a file that does not say it was trained with, of `released.METHODS`; settles its normalisation.

    Returns:
        The encoder, with its weights and `.metadata`; `.recognised` says what a file of another's was taken for, and
        `.doubt` what speaks against it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, is no checkpoint known here, lacks a weight of its architecture or holds
            one that is not, or asks for anything to be run.
    """
    path = Path(path)
    if not is_safetensors(path):
        return _load_released(path, read_pickled(path), method)
    with open_safetensors(path) as file:
        stored = file.metadata()
        names = file.keys()
        if not stored or _KEY not in stored:
            return _load_released(path, {name: file.get_tensor(name) for name in names}, method)
        # What `groco convert` wrote for another library has that library's names, and says so.
        prefix = "" if _LAYOUT in _values(path, stored) else "encoder."
        state = {k.removeprefix(prefix): file.get_tensor(k) for k in names if k.startswith(prefix)}
    metadata = _metadata(path, stored)
    try:
        encoder = create_encoder(metadata)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if method and method != encoder.metadata.method:
        raise CheckpointError(f"{path} says that it is {encoder.metadata.method}, not {method}", "leave the method out")
    return _fill(encoder, in_names_of(encoder.backbone.state_dict(), state), path, encoder.metadata.arch)


def save_for_library(path: Path, encoder: Encoder, exported: "Exported") -> None:
    """Write an encoder's weights by another library's names, groco's metadata beside them.

    Args:
        path: Where to; written straight, so give a temporary path (`files.atomic_write`).
        encoder: Whose metadata are written.
        exported: Its weights as the library has them.

    Raises:
        OSError: If it cannot be written.
    """
    metadata = dataclasses.asdict(encoder.metadata) | {
        "feature_dim": encoder.feature_dim,
        _LAYOUT: exported.library,
        "build": exported.build,
    }
    _write(path, exported.state, metadata)


def _load_released(path: Path, content: Mapping[Any, Any], method: str) -> Encoder:
    try:
        found = find_encoder(content)
        release = _settle(found.release, method)
        architecture = identify(found.state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", error.hint) from error
    metadata = EncoderMetadata(
        arch=architecture.arch,
        stem=release.small_stem if architecture.stem == "small" else architecture.stem,
        image_size=architecture.image_size,
        resize=architecture.resize,
        method=release.method,
        epoch=found.epoch,
        attention_heads=architecture.heads,
    )
    if not release.normalised:
        metadata = dataclasses.replace(metadata, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    encoder = create_encoder(metadata)
    encoder.recognised = "; ".join(
        [
            f"{release.title}, {architecture.title}",
            *(
                ["ImageNet's normalisation assumed, as it does not say its method"]
                if release.method == PLAIN.method
                else []
            ),
            *([f"left out: {', '.join(found.left_out)}"] if found.left_out else []),
        ]
    )
    if release.guessed and not method:
        encoder.doubt = _doubt(path, release)
    return _fill(encoder, architecture.state, path, f"{architecture.title}, recognised as {release.title}")


def _doubt(path: Path, release: Release) -> str:
    """What was concluded from too little, what follows from it, and what to type if it is not so."""
    normalisation = "ImageNet's normalisation" if release.normalised else "no normalisation (mean 0, std 1)"
    return (
        f"{path} is taken for {release.title}, {release.guessed}: its images get {normalisation}; "
        f"if that is wrong, type: groco convert {shlex.quote(str(path))} OUT.safetensors --method {release.otherwise}"
    )


def _settle(release: Release, method: str) -> Release:
    """The row of the table; plain weights, and what was guessed, taken for what they are said to be."""
    if not method or method == release.method:
        return release
    if release.method != PLAIN.method and not release.guessed:
        raise CheckpointError(f"recognised as {release.title}, not {method}", "leave the method out")
    if method not in METHODS:
        raise CheckpointError(f"unknown method {method!r}", f"there are {', '.join(METHODS)}")
    said = METHODS[method]
    return dataclasses.replace(
        PLAIN,
        method=method,
        title=f"plain weights, said to be {method}",
        normalised=said.normalised,
        small_stem=said.small_stem,
    )


def _fill(encoder: Encoder, state: Mapping[str, Tensor], path: Path, what: str) -> Encoder:
    """Put all weights in place, or none.

    Raises:
        CheckpointError: If one is missing, of another shape, or not the encoder's.
    """
    wanted = encoder.backbone.state_dict()
    # Files converted from elsewhere lack BN's counter of batches, which nothing reads.
    state = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")} | dict(state)
    wrong = mismatch(wanted, state)
    if wrong:
        raise CheckpointError(f"{path} does not hold a whole {what}: {wrong}")
    try:
        encoder.backbone.load_state_dict(state)
    except RuntimeError as error:  # such as sparse weights
        why = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise CheckpointError(f"{path} holds weights that cannot be copied ({why})", "fetch it again") from error
    return encoder.eval()


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    plain = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
    # Not `save_file`: where the disk is full it raises an error of its own, which is no OSError.
    path.write_bytes(save(plain, {_KEY: json.dumps(metadata)}))


def _metadata(path: Path, stored: dict[str, str]) -> EncoderMetadata:
    known = {field.name for field in dataclasses.fields(EncoderMetadata)}
    try:
        values: dict[str, Any] = {k: v for k, v in _values(path, stored).items() if k in known}
        values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return EncoderMetadata(**values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} has damaged metadata ({error})") from error


def _values(path: Path, stored: dict[str, str]) -> dict[str, Any]:
    try:
        values = json.loads(stored[_KEY])
    except ValueError as error:
        raise CheckpointError(f"{path} has damaged metadata ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} has damaged metadata (no object)")
    return values

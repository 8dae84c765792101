"""Checkpoints in and out: groco's safetensors, which need no other file and never a pickle.

Tensors are named "encoder.…" (the backbone's own names behind it) and "projector.…"; the metadata says everything
else, as one JSON object under "groco".
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from groco_cli.models.encoder import Encoder, EncoderMetadata, create_encoder

_KEY = "groco"


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
    plain = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
    # Not `save_file`: where the disk is full it raises an error of its own, which is no OSError.
    path.write_bytes(save(plain, {_KEY: json.dumps(metadata)}))


def read_metadata(path: Path) -> EncoderMetadata:
    """A checkpoint's metadata, without its tensors.

    Raises:
        ValueError: If the file is truncated, or not one of groco's.
    """
    with _open(path) as file:
        return _metadata(path, file.metadata())


def load_encoder(path: str | Path) -> Encoder:
    """Read an encoder, on the CPU and in evaluation mode.

    Args:
        path: A groco checkpoint (.safetensors).

    Returns:
        The encoder, with its weights and `.metadata`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, is no groco checkpoint, or lacks a weight of its architecture.
    """
    path = Path(path)
    with _open(path) as file:
        encoder = create_encoder(_metadata(path, file.metadata()))
        prefix = "encoder."
        state = {k.removeprefix(prefix): file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}  # noqa: SIM118
    wanted = encoder.backbone.state_dict()
    wrong = sorted(wanted.keys() - state.keys()) or sorted(state.keys() - wanted.keys())
    wrong = wrong or [name for name in wanted if wanted[name].shape != state[name].shape]
    if wrong:
        raise ValueError(f"{path} does not hold a whole {encoder.metadata.arch}: see {', '.join(wrong[:5])}")
    encoder.backbone.load_state_dict(state)
    return encoder.eval()


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error})") from error


def _metadata(path: Path, stored: dict[str, str] | None) -> EncoderMetadata:
    if not stored or _KEY not in stored:
        raise ValueError(f"{path} is a safetensors file, but not one of groco's")
    known = {field.name for field in dataclasses.fields(EncoderMetadata)}
    try:
        values: dict[str, Any] = {k: v for k, v in json.loads(stored[_KEY]).items() if k in known}
        values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return EncoderMetadata(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} has damaged metadata ({error})") from error

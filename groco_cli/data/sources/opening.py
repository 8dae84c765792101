"""From what `--data` says to a data set."""

import glob
from pathlib import Path

from groco_cli.data.sources.base import Dataset
from groco_cli.data.sources.folders import folder_dataset
from groco_cli.data.sources.huggingface import huggingface_dataset, is_huggingface
from groco_cli.data.sources.manifests import MANIFEST_ENDINGS, manifest_dataset
from groco_cli.data.sources.named import ALIASES, NAMED
from groco_cli.data.sources.shards import (
    absolute,
    folder_of_shards,
    is_pattern,
    is_shard_folder,
    located_patterns,
    shard_dataset,
)
from groco_cli.errors import UsageError, did_you_mean

_SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_dataset(data: str, root: Path) -> Dataset:
    """Open what `--data` names.

    Args:
        data: The name of a set (`NAMED`, `ALIASES`); a folder of images, of shards, or written by Hugging Face's
            `datasets`; a manifest; or patterns of shards. docs/data.md shows each.
        root: Where named sets are kept, and downloaded to; and remote shards and shards' indexes.

    Raises:
        UsageError: If there is no such thing.
        GrocoError: If there is no image in it that can be decoded, it is damaged, or cannot be downloaded.
    """
    if not data:
        raise UsageError("no images named", "give --data")
    if data in NAMED:
        return NAMED[data](root)
    if is_pattern(data):
        return shard_dataset(data, root)
    try:
        path = Path(data).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # no way into a folder above it; no such ~user; a name too long
        raise UsageError(f"{data}: cannot be opened ({error})", "give a folder that you may read") from error
    if is_folder:
        return _folder(path, root)
    if is_file and path.suffix.lower() in MANIFEST_ENDINGS:
        return manifest_dataset(path)
    if data.lower().endswith(_SHARD_ENDINGS) or (not is_file and ("{" in data or glob.has_magic(data))):
        return shard_dataset(data, root)
    if is_file:
        raise UsageError(f"{data} is a file", f"give a folder, a list ({', '.join(MANIFEST_ENDINGS)}), or .tar shards")
    if data in ALIASES:
        return NAMED[ALIASES[data]](root)
    near = did_you_mean(data, NAMED) or did_you_mean(data, ALIASES)
    hint = near or f"give a folder, a list, .tar shards, or one of {', '.join(NAMED)}"
    raise UsageError(f"{data}: no such folder or data set", hint)


def located(data: str) -> str:
    """What `--data` says, so that it means the same in whichever folder it is typed.

    Args:
        data: What was opened. Paths become absolute; names of sets, URLs and commands stay as they are.
    """
    if not data or data in NAMED or (data in ALIASES and not Path(data).exists()):
        return data
    return located_patterns(data) if is_pattern(data) else absolute(data)


def _folder(folder: Path, root: Path) -> Dataset:
    if is_huggingface(folder):
        return huggingface_dataset(folder)
    if is_shard_folder(folder):
        return folder_of_shards(folder, root)
    return folder_dataset(folder)

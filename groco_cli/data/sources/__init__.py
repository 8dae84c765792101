"""Where images come from, all behind `--data` and one small protocol; docs/data.md shows every kind."""

from groco_cli.data.sources.base import (
    Dataset,
    FileSource,
    MemorySource,
    Source,
    default_root,
    evenly_spread,
    first,
    pick,
    thinned,
)
from groco_cli.data.sources.named import NAMED
from groco_cli.data.sources.opening import located, open_dataset
from groco_cli.data.sources.shards import ShardSource

__all__ = [
    "NAMED",
    "Dataset",
    "FileSource",
    "MemorySource",
    "ShardSource",
    "Source",
    "default_root",
    "evenly_spread",
    "first",
    "located",
    "open_dataset",
    "pick",
    "thinned",
]

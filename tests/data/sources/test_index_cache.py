"""Kept indexes: used while the shard stays as it is, made anew where it does not, never half-written."""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from groco_cli.data.sources import index_cache
from groco_cli.data.sources.index_cache import cached_index
from groco_cli.data.sources.tar_index import ShardIndex, index_shard

Write = Callable[..., Path]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The shards that were gone through."""
    seen: list[Path] = []

    def counted(path: Path) -> ShardIndex:
        seen.append(path)
        return index_shard(path)

    monkeypatch.setattr(index_cache, "index_shard", counted)
    return seen


def assert_same(left: ShardIndex, right: ShardIndex) -> None:
    for field in fields(ShardIndex):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))


def test_an_unchanged_shard_is_gone_through_once(write_shard: Write, tmp_path: Path, passes: list[Path]):
    shard = write_shard("s.tar", [4, 2])
    for _ in range(3):
        assert_same(cached_index(shard, tmp_path / "index"), index_shard(shard))
    assert passes == [shard]
    assert len(list((tmp_path / "index").iterdir())) == 1


@pytest.mark.parametrize("what", ["content", "time"])
def test_a_changed_shard_is_gone_through_again(write_shard: Write, tmp_path: Path, passes: list[Path], what: str):
    shard = write_shard("s.tar", [4, 2])
    cached_index(shard, tmp_path / "index")
    if what == "content":
        write_shard("s.tar", [4, 2, 1] * 20)
    else:
        os.utime(shard, ns=(1, 1))
    assert_same(cached_index(shard, tmp_path / "index"), index_shard(shard))
    assert len(passes) == 2
    assert len(list((tmp_path / "index").iterdir())) == 1, "the old index is replaced"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04half", None])
def test_a_damaged_index_is_made_anew(write_shard: Write, tmp_path: Path, passes: list[Path], damage: bytes | None):
    shard = write_shard("s.tar", [4, 2])
    cached_index(shard, tmp_path / "index")
    (kept,) = (tmp_path / "index").iterdir()
    kept.write_bytes(kept.read_bytes()[:-50] if damage is None else damage)
    assert_same(cached_index(shard, tmp_path / "index"), index_shard(shard))
    assert len(passes) == 2


def test_where_nothing_can_be_kept_the_shard_is_read_all_the_same(write_shard: Write, tmp_path: Path):
    (tmp_path / "file").touch()
    assert len(cached_index(write_shard("s.tar", [4, 2]), tmp_path / "file" / "index")) == 2


def test_shards_of_one_name_are_told_apart(write_shard: Write, tmp_path: Path):
    shards = [write_shard("a/s.tar", [1]), write_shard("b/s.tar", [2])]
    for _ in range(2):
        assert [cached_index(s, tmp_path / "index").numbers.tolist() for s in shards] == [[1], [2]]

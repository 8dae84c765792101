"""Indexes against webdataset's own reader; damaged and hostile tars."""

import io
import pickle
import random
import tarfile
from pathlib import Path

import pytest
import webdataset

from groco_cli.data.sources.tar_index import ShardIndex, index_shard
from groco_cli.errors import GrocoError

PICTURE = b"\xff\xd8 not looked at here"


def refused(path: Path) -> str:
    with pytest.raises(GrocoError) as caught:
        index_shard(path)
    assert caught.value.message.startswith(str(path))
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


def contents(path: Path, index: ShardIndex) -> list[bytes]:
    data = path.read_bytes()
    return [data[offset : offset + size] for offset, size in zip(index.offsets, index.sizes, strict=True)]


def test_samples_are_those_that_webdataset_reads(write_tar):
    members = {
        "b/0.JPG": b"first",
        "b/0.cls": b"3",
        "a.b/1.tar.gz/x.seg.png": b"no picture of a sample",
        "a.b/1.tar.gz/x.png": b"second",
        "a.b/1.tar.gz/x.json": b'{"label": 1}',
        "./2.webp": b"third",
        "./2.txt": b"a caption",
        "3.image.jpg": b"",
        "3.metadata.pyd": pickle.dumps({"cls": 2, "wnid": "n02"}),
        "__meta__/info.json": b"{}",
        "README": b"no key",
        "4" * 150 + ".jpeg": b"a long name",
        "é ü.jpeg": b"accents",
    }
    path = write_tar("s.tar", members)
    index = index_shard(path)
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [key.decode() for key in index.keys] == [sample["__key__"] for sample in samples]
    assert len(index) == 6
    kinds = ("jpg", "png", "webp", "image.jpg", "jpeg")
    assert contents(path, index) == [next(s[kind] for kind in kinds if kind in s) for s in samples]
    assert index.numbers.tolist() == [3, 1, -1, 2, -1, -1]
    assert index.names.tolist() == [b"", b"", b"", b"n02", b"", b""]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(tmp_path: Path, format: int):
    folder, path = tmp_path / "n" / ("d" * 90), tmp_path / "s.tar"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{'k' * 60}{number}.jpg").write_bytes(bytes([number]) * (500 + 10 * number))
    with tarfile.open(path, "w", format=format) as tar:
        tar.add(tmp_path / "n", "n")  # folders have members of their own
    index = index_shard(path)
    assert sorted(contents(path, index)) == [bytes([n]) * (500 + 10 * n) for n in range(3)]


def test_members_of_a_sample_may_lie_apart(write_tar):
    path = write_tar("s.tar", {"0.jpg": b"a", "1.jpg": b"b", "1.cls": b"1", "0.cls": b"0"})
    assert index_shard(path).numbers.tolist() == [0, 1]


def test_the_first_kind_of_label_that_says_something_counts(write_tar):
    members = {"0.jpg": b"a", "0.json": b'{"label": 1}', "0.cls": b"2", "1.jpg": b"", "1.json": b'{"text": 1}'}
    assert index_shard(write_tar("s.tar", members)).numbers.tolist() == [2, -1]


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({}, "no sample in it"),
        ({"README": b"", ".hidden.jpg": b""}, "no sample in it"),
        ({"0.jpg": b"", "1.cls": b"1", "1.txt": b""}, "sample 1 has no picture (only cls, txt)"),
        ({"a.v2.jpg": b""}, "sample a has no picture (only v2.jpg)"),
        ({"0.jpg": b"", "0.png": b""}, "sample 0 has 2 pictures (jpg, png)"),
        ({"0.jpg": b"", "0.JPG": b""}, "0.JPG is in it twice"),
        ({"0.jpg": b"", "0.cls": b"cat"}, "label 0.cls cannot be read"),
        ({"0.jpg": b"", "0.metadata.pyd": b"cos\nsystem\n."}, "os.system, which is refused"),
        ({"0.jpg": b"", "0.cls": b"1" * (1 << 21)}, "2,097,152 bytes"),
        ({"../0.jpg": b""}, "climbs out"),
        ({"a/../../0.jpg": b""}, "climbs out"),
        ({"/etc/0.jpg": b""}, "climbs out"),
    ],
)
def test_samples_that_are_not_as_they_should_be_are_refused(write_tar, members: dict[str, bytes], told: str):
    assert told in refused(write_tar("s.tar", members))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("0.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    assert "'0.jpg' is no plain file" in refused(path)


def test_a_duplicate_key_is_refused(tmp_path: Path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("0.jpg"))
    assert "0.jpg is in it twice" in refused(path)


def whole(count: int = 5) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(PICTURE)
            tar.addfile(info, io.BytesIO(PICTURE))
    return buffer.getvalue()


def test_a_tar_cut_off_anywhere_is_refused(tmp_path: Path):
    path, data = tmp_path / "s.tar", whole()
    end = 5 * 1024  # a header and a block of data each; a block of zeros ends it
    for length in (0, 1, 100, 511, 512, 513, 1000, 1024, 1500, 1536, 2048, 4608, end - 1, end, end + 100, end + 511):
        path.write_bytes(data[:length])
        assert refused(path)
    path.write_bytes(data[: end + 512])
    assert len(index_shard(path)) == 5


@pytest.mark.parametrize("member", range(5))
def test_a_broken_member_loses_nothing_silently(tmp_path: Path, member: int):
    path, data = tmp_path / "s.tar", bytearray(whole())
    data[member * 1024 + 148] ^= 0x41  # in the header's checksum
    path.write_bytes(data)
    assert "damaged" in refused(path)


def test_tars_joined_end_to_end_are_refused(tmp_path: Path):
    path = tmp_path / "s.tar"
    path.write_bytes(whole() + whole())
    assert "is no member" in refused(path)


def test_a_negative_size_does_not_go_round_in_circles(tmp_path: Path):
    path = tmp_path / "s.tar"
    info = tarfile.TarInfo("0.jpg")
    info.size = -512
    header = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(header + bytes(1024))
    assert "negative size" in refused(path)


def test_a_sparse_member_is_refused(tmp_path: Path):
    path = tmp_path / "s.tar"
    info = tarfile.TarInfo("0.jpg")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1024"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    assert "no plain file" in refused(path)


@pytest.mark.parametrize(
    ("start", "told"),
    [(b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")],
)
def test_compressed_shards_are_told_to_decompress(tmp_path: Path, start: bytes, told: str):
    path = tmp_path / "s.tar"
    path.write_bytes(start)
    assert f"compressed with {told}" in refused(path)


@pytest.mark.parametrize("content", [b"", b"this is no tar\n" * 100, b"\xff" * 4096])
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "s.tar"
    path.write_bytes(content)
    assert refused(path)


def test_a_damaged_tar_raises_nothing_else_and_loses_nothing(tmp_path: Path):
    path, rng = tmp_path / "s.tar", random.Random(0)
    refusals = 0
    for _ in range(300):
        data = bytearray(whole())
        for _ in range(3):
            data[rng.randrange(5 * 1024)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            assert len(index_shard(path)) == 5
        except GrocoError:
            refusals += 1
    assert 0 < refusals < 300


def test_no_permission_and_folders_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "cannot be read" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "nowhere.tar")

"""Sources in memory and in files: parts of them, and what their pictures are called."""

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groco_cli.data.sources import FileSource, MemorySource, Source, evenly_spread, first, pick, thinned
from groco_cli.data.sources.fingerprints import fingerprint_of
from groco_cli.errors import GrocoError


def memory_source() -> MemorySource:
    return MemorySource(torch.arange(6 * 3 * 4, dtype=torch.uint8).view(6, 3, 2, 2), torch.arange(6) * 10, ("a", "b"))


def file_source() -> FileSource:
    return FileSource(tuple(Path(f"{i}.png") for i in range(6)), torch.arange(6) * 10, ("a", "b"))


def test_picked_images_come_in_the_order_asked_for():
    chosen = [4, 0, 4, 2]
    in_memory, in_files = (pick(source(), torch.tensor(chosen)) for source in (memory_source, file_source))
    assert len(in_memory) == len(in_files) == 4
    assert in_memory.labels.tolist() == in_files.labels.tolist() == [40, 0, 40, 20]
    assert in_memory.classes == in_files.classes == ("a", "b")
    for place, number in enumerate(chosen):
        assert torch.equal(in_memory.load(place), memory_source().load(number))
        assert in_files.paths[place] == Path(f"{number}.png")


def test_unlabelled_images_stay_so_when_picked():
    assert pick(FileSource((Path("a"), Path("b")), None, ()), torch.tensor([1])) == FileSource((Path("b"),), None, ())


@pytest.mark.parametrize(("count", "left"), [(0, 6), (1, 1), (5, 5), (6, 6), (7, 6)])
@pytest.mark.parametrize("source", [memory_source, file_source])
def test_the_first_images_of_a_source(source: Callable[[], MemorySource | FileSource], count: int, left: int):
    assert first(source(), count).labels.tolist() == [10 * number for number in range(left)]


@given(st.integers(1, 1000), st.integers(0, 1200))
def test_spread_numbers_rise_evenly(count, wanted):
    numbers = evenly_spread(count, wanted).tolist()
    assert len(numbers) == min(count, wanted)
    assert all(0 <= number < count for number in numbers)
    gaps = {after - before for before, after in pairwise(numbers)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


@pytest.mark.parametrize(("count", "left"), [(0, 6), (1, 1), (3, 3), (6, 6), (7, 6)])
def test_of_sets_in_memory_the_first_images_stand_for_all(count: int, left: int):
    assert thinned(memory_source(), count).labels.tolist() == [10 * number for number in range(left)]


def test_of_files_that_come_class_by_class_every_class_is_kept():
    classes = torch.arange(1000).repeat_interleave(50)
    imagenet = FileSource(tuple(Path(f"{c}/{i}.jpg") for i, c in enumerate(classes.tolist())), classes, ())
    assert len(first(imagenet, 2000).labels.unique()) == 40
    assert thinned(imagenet, 2000).labels.bincount().tolist() == [2] * 1000
    assert thinned(imagenet, 0) is thinned(imagenet, 50_000) is imagenet


def test_pictures_keep_their_names_when_picked():
    digits = MemorySource(memory_source().images, None, (), "digits")
    assert digits.name_of(4) == "digits 4"
    assert digits.subset(torch.tensor([5, 3, 1])).subset(torch.tensor([2, 0])).name_of(1) == "digits 5"
    assert file_source().subset(torch.tensor([5, 3])).name_of(1) == "3.png"


def test_a_fingerprint_changes_with_the_pixels_and_their_order_alone():
    source = memory_source()
    found = source.fingerprint()
    assert (
        memory_source().fingerprint() == replace(source, labels=None, classes=(), name="other").fingerprint() == found
    )
    changed = source.images.clone()
    changed[-1, -1, -1, -1] ^= 1
    others = {
        replace(source, images=images).fingerprint()
        for images in (changed, source.images.flip(0), source.images[:-1], source.images.flatten(2)[..., None])
    }
    assert len(others | {found}) == 5


def test_a_fingerprint_of_files_changes_with_their_names_sizes_and_times(tmp_path: Path):
    paths = tuple(tmp_path / name for name in ("a.png", "b.png"))
    for path in paths:
        path.write_bytes(b"picture")
        os.utime(path, ns=(0, 0))
    source = FileSource(paths, None, ())
    found = [source.fingerprint(), source.subset(torch.tensor([1, 0])).fingerprint()]
    os.utime(paths[0], ns=(0, 1))
    found.append(source.fingerprint())
    paths[0].write_bytes(b"another picture")
    os.utime(paths[0], ns=(0, 0))
    found.append(source.fingerprint())
    os.utime(paths[0], ns=(0, 0))
    assert source.fingerprint() == found[-1]
    assert len(set(found)) == 4
    paths[1].unlink()
    with pytest.raises(GrocoError, match=r"b\.png: cannot be read"):
        source.fingerprint()


def test_a_source_that_knows_nothing_quicker_is_read_whole():
    class Contents(MemorySource):
        fingerprint = Source.fingerprint

    source = memory_source()
    one = Contents(source.images, None, ())
    assert one.fingerprint() == Contents(source.images.clone(), None, ()).fingerprint()
    assert one.fingerprint() != Contents(source.images.flip(0), None, ()).fingerprint()
    assert fingerprint_of([b"ab", b"c"]) != fingerprint_of([b"a", b"bc"])

"""Views depend on (seed, epoch, image, view) alone; evaluation shows every image once, in order."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf

from groco_cli.data.loader import Share, ViewLoader, evaluation_batches
from groco_cli.data.pool import dead_workers_explained
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import FileSource, MemorySource, open_dataset
from groco_cli.data.transforms import EvaluationTransform, Normalisation
from groco_cli.data.views import AUGMENTATIONS
from groco_cli.errors import GrocoError

CPU = torch.device("cpu")
PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def in_memory(count: int = 12, size: int = 16) -> MemorySource:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return MemorySource(torch.from_numpy(images), torch.arange(count) % 3, ("a", "b", "c"))


def in_files(picture_folder, count: int = 12) -> FileSource:
    source = open_dataset(str(picture_folder(*(f"{i:02}.png" for i in range(count)), size=(40, 30))), Path()).train
    assert isinstance(source, FileSource)
    return source


def loader(source, *, batch_size=4, workers=0, seed=0, augmentation="dino", views=2, local_views=0, **options):
    return ViewLoader(
        source,
        AUGMENTATIONS[augmentation](views, local_views, 16, 8),
        batch_size=batch_size,
        order=shuffled(len(source), seed),
        normalisation=PLAIN,
        seed=seed,
        device=CPU,
        workers=workers,
        **options,
    )


def by_image(made: ViewLoader, epoch: int) -> dict[int, list[torch.Tensor]]:
    """Each image's views, by its number."""
    order = made.order(epoch)
    views = [list(zip(*batch, strict=True)) for batch in made.epoch(epoch)]
    return dict(zip(order.tolist(), (image for batch in views for image in batch), strict=False))


def assert_same_views(left, right, **tolerance):
    for number in left.keys() & right.keys():
        for a, b in zip(left[number], right[number], strict=True):
            torch.testing.assert_close(a, b, **tolerance)


@pytest.fixture(params=["memory", "files"])
def source(request, picture_folder):
    return in_memory() if request.param == "memory" else in_files(picture_folder)


def test_an_epoch_has_every_image_once_in_a_new_order(source):
    made = loader(source, batch_size=4)
    epochs = [by_image(made, epoch) for epoch in (0, 1)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert list(epochs[0]) != list(epochs[1])
    assert len(made) == 3


def test_views_have_their_size_and_differ_between_views_and_epochs(source):
    made = loader(source, local_views=1)
    first, second = by_image(made, 0), by_image(made, 1)
    assert [view.shape[-1] for view in first[0]] == [16, 16, 8]
    assert not torch.equal(first[3][0], first[3][1])
    assert not torch.equal(first[3][0], second[3][0])


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_view_does_not_depend_on_the_batch(source, augmentation):
    small = by_image(loader(source, batch_size=3, augmentation=augmentation), 5)
    large = by_image(loader(source, batch_size=12, augmentation=augmentation), 5)
    assert small.keys() == large.keys()
    assert_same_views(small, large, atol=1e-5, rtol=0)


def test_a_view_depends_on_the_seed(source):
    assert not torch.equal(by_image(loader(source), 0)[2][0], by_image(loader(source, seed=1), 0)[2][0])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_view_does_not_depend_on_the_number_of_workers(picture_folder, workers):
    source = in_files(picture_folder)
    assert_same_views(by_image(loader(source), 2), by_image(loader(source, workers=workers), 2), atol=0, rtol=0)


def test_a_resumed_epoch_goes_on_where_it_was(source):
    made = loader(source)
    whole, rest = list(made.epoch(4)), list(made.epoch(4, start=1))
    assert len(rest) == len(whole) - 1
    for batch, resumed in zip(whole[1:], rest, strict=True):
        for a, b in zip(batch, resumed, strict=True):
            assert torch.equal(a, b)


def test_the_same_picture_gives_the_same_views_from_memory_and_from_a_file(picture_folder):
    files = in_files(picture_folder)
    memory = MemorySource(torch.stack([files.load(i) for i in range(len(files))]), None, ())
    for augmentation in ("dino", "simclr"):
        a, b = (by_image(loader(s, augmentation=augmentation), 0) for s in (files, memory))
        # From a file the crop is rounded to 8 bits before the colours change.
        differences = torch.cat([(x - y).abs().flatten() for n in a for x, y in zip(a[n], b[n], strict=True)])
        assert differences.mean() < 2 / 255


def test_a_bad_image_ends_the_epoch_with_its_name(picture_folder):
    for workers in (0, 1):
        source = in_files(picture_folder)
        source.paths[7].write_bytes(b"no picture")
        with pytest.raises(GrocoError, match=r"cannot decode .*07\.png"):
            list(loader(source, workers=workers).epoch(0))
        with pytest.raises(GrocoError, match=r"cannot decode .*07\.png"):
            list(evaluation_batches(source, transform(), batch_size=4, device=CPU, workers=workers))


def transform(resize=20, crop=16, normalisation=PLAIN) -> EvaluationTransform:
    return EvaluationTransform(resize=resize, crop=crop, normalisation=normalisation)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_evaluation_shows_every_image_once_in_order(source, batch_size):
    batches = list(evaluation_batches(source, transform(), batch_size=batch_size, device=CPU, workers=0))
    numbers, shown = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert numbers.tolist() == list(range(len(source)))
    expected = []
    for i in range(len(source)):
        resized = tvf.resize(source.load(i), [20], interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
        expected.append(tvf.center_crop(resized, [16, 16]).float() / 255)
    torch.testing.assert_close(shown, torch.stack(expected))


def test_pictures_of_the_right_size_are_shown_as_they_are():
    source = in_memory(size=16)
    ((_, shown),) = evaluation_batches(source, transform(resize=16), batch_size=12, device=CPU, workers=0)
    assert torch.equal(shown, source.images.float() / 255)


def test_normalisation_comes_last():
    source = in_memory()
    normalisation = Normalisation(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    ((_, shown),) = evaluation_batches(source, transform(16, 16, normalisation), batch_size=12, device=CPU, workers=0)
    expected = tvf.normalize(source.images.float() / 255, [0.5, 0.25, 0.0], [0.5, 1.0, 2.0])
    torch.testing.assert_close(shown, expected)


def test_real_photographs_of_all_sizes_become_views(imagenet_jpegs):
    source = open_dataset(str(imagenet_jpegs), Path()).train
    made = ViewLoader(
        source,
        AUGMENTATIONS["dino"](2, 1, 64, 32),
        batch_size=50,
        order=shuffled(len(source), 0),
        normalisation=PLAIN,
        seed=0,
        device=CPU,
        workers=0,
    )
    batches = list(made.epoch(0))
    assert len(batches) == 5
    for views in batches:
        assert [tuple(view.shape) for view in views] == [(50, 3, 64, 64), (50, 3, 64, 64), (50, 3, 32, 32)]
        for view in views:
            assert view.min() > -1e-5
            assert view.max() < 1 + 1e-5  # blurring rounds


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_prepare_the_halves_of_each_batch(source, workers):
    whole = list(loader(source, local_views=1).epoch(3))
    halves = [list(loader(source, local_views=1, workers=workers, share=Share(p, 2)).epoch(3)) for p in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        for view, a, b in zip(batch, first, second, strict=True):
            torch.testing.assert_close(torch.cat([a, b]), view, atol=1e-6, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_image_is_named_once_and_batches_stay_whole(picture_folder, workers, capsys):
    source = in_files(picture_folder, 100)
    source.paths[7].write_bytes(b"no picture")
    made = loader(source, batch_size=20, workers=workers, on_bad_image="skip")
    halves = [loader(source, batch_size=20, on_bad_image="skip", share=Share(p, 2)) for p in (0, 1)]
    capsys.readouterr()
    for epoch in range(3):
        batches = list(made.epoch(epoch))
        assert [len(view) for views in batches for view in views] == [20] * 10
        # The same image takes its place however the batch is divided.
        for batch, first, second in zip(batches, *(half.epoch(epoch) for half in halves), strict=True):
            for view, a, b in zip(batch, first, second, strict=True):
                torch.testing.assert_close(torch.cat([a, b]), view, atol=1e-6, rtol=0)
    assert list(made.bad) == [str(source.paths[7])]
    assert capsys.readouterr().err.count("warning: skipped") == 1 + sum(len(half.bad) for half in halves)


def test_a_bad_image_without_a_substitute_is_an_error_that_does_not_advise_to_skip(picture_folder):
    source = in_files(picture_folder, 4)
    source.paths[2].write_bytes(b"")
    with pytest.raises(GrocoError, match=r"cannot decode .*02\.png") as caught:
        list(loader(source, batch_size=4, on_bad_image="skip").epoch(0))
    assert "no other image is left" in caught.value.hint
    with pytest.raises(GrocoError) as caught:
        list(loader(source, batch_size=2).epoch(0))
    assert "--on-bad-image skip" in caught.value.hint


def test_too_many_bad_images_end_the_run(picture_folder):
    source = in_files(picture_folder, 100)
    for path in source.paths[:2]:
        path.write_bytes(b"")
    with pytest.raises(GrocoError, match="2 of 100 images cannot be decoded") as caught:
        list(loader(source, batch_size=10, on_bad_image="skip").epoch(0))
    assert "one in a hundred" in caught.value.hint


def test_each_process_counts_the_bad_images_among_those_that_it_is_given_in_an_epoch(picture_folder):
    """Of 640 images 6 may be bad: of the 40 of a process two by chance, but not three of them in one epoch."""
    source = in_files(picture_folder, 640)
    first = loader(source, batch_size=64, on_bad_image="skip", share=Share(0, 16))
    for number in np.concatenate([first.share.of(batch) for batch in first.batches(0)])[:3]:
        source.paths[number].write_bytes(b"")
    with pytest.raises(GrocoError, match="3 of 40 images cannot be decoded"):
        list(first.epoch(0))
    source.paths[first.batches(0)[0][0]].write_bytes(source.paths[first.batches(0)[9][0]].read_bytes())
    assert len(list(first.epoch(0))) == 10


def test_bad_images_are_left_out_of_an_evaluation_where_asked(picture_folder):
    source = in_files(picture_folder)
    source.paths[5].write_bytes(b"")
    options = {"batch_size": 4, "device": CPU, "on_bad_image": "skip"}
    for workers in (0, 2):
        batches = list(evaluation_batches(source, transform(), workers=workers, **options))
        assert torch.cat([numbers for numbers, _ in batches]).tolist() == [n for n in range(12) if n != 5]


def test_views_computed_in_bfloat16_are_near_and_float32(source):
    half, single = (by_image(loader(source, dtype=dtype), 0) for dtype in (torch.bfloat16, torch.float32))
    for number in half:
        for a, b in zip(half[number], single[number], strict=True):
            assert a.dtype == torch.float32
            assert 0 < (a - b).abs().mean() < 0.01


class _Killer(FileSource):
    """A worker that decodes image 5 is killed, as by a machine that runs out of memory."""

    def open(self, index: int):
        if index == 5 and torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(index)


def test_the_death_of_a_worker_is_an_error_and_no_hang(picture_folder):
    files = in_files(picture_folder)
    source = _Killer(files.paths, files.labels, files.classes)
    with pytest.raises(GrocoError, match="a process that decodes images died") as caught, dead_workers_explained():
        list(loader(source, workers=2).epoch(0))
    assert "--workers" in caught.value.hint


MANY_EPOCHS = """
import os, sys
from pathlib import Path

import torch

from groco_cli.data.loader import ViewLoader
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import open_dataset
from groco_cli.data.transforms import Normalisation
from groco_cli.data.views import AUGMENTATIONS

torch.set_num_threads(1)
source = open_dataset(sys.argv[1], Path()).train
loader = ViewLoader(
    source, AUGMENTATIONS["dino"](2, 0, 16, 8), batch_size=16, order=shuffled(len(source), 0),
    normalisation=Normalisation(), seed=0, device=torch.device("cpu"), workers=2,
)
for epoch in range(70):
    for _ in loader.epoch(epoch):
        pass
    if epoch % 10 == 9:
        processes = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        lines = [line for p in (os.getpid(), *processes) for line in open(f"/proc/{p}/smaps_rollup")]
        print(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no /proc/PID/smaps_rollup")
def test_memory_does_not_grow_with_epochs(picture_folder):
    """A process of its own and its workers, over sixty epochs behind the first ten."""
    folder = picture_folder(*(f"{i:02}.png" for i in range(64)), size=(40, 30))
    ran = subprocess.run([sys.executable, "-c", MANY_EPOCHS, str(folder)], capture_output=True, text=True, check=True)
    sizes = [int(line) for line in ran.stdout.split()]
    assert len(sizes) == 7
    assert sizes[-1] - sizes[0] < 8 * 2**20


@pytest.mark.parametrize("source", ["memory", "files"])
@pytest.mark.parametrize(("processes", "sizes"), [(1, [4, 4, 3]), (2, [4, 4, 3]), (4, [4, 4])])
def test_the_rest_of_an_epoch_makes_a_last_batch_where_asked_for(picture_folder, source, processes, sizes):
    """Eleven images; a rest that does not give every process one image is left to other epochs."""
    images = in_memory(11) if source == "memory" else in_files(picture_folder, 11)
    whole = loader(images, drop_last=False)
    expected = by_image(whole, 1)
    assert len(expected) == 11
    assert [len(views[0]) for views in whole.epoch(1)] == [4, 4, 3]
    shares = [loader(images, drop_last=False, share=Share(process, processes)) for process in range(processes)]
    assert [len(batch) for batch in shares[0].batches(1)] == sizes
    for share in shares:
        assert len(share) == len(sizes)
        for batch, views in zip(share.batches(1), share.epoch(1), strict=True):
            found = dict(zip(share.share.of(batch).tolist(), zip(*views, strict=True), strict=True))
            assert_same_views(found, expected)
    parts = [share.share.of(batch) for batch in shares[0].batches(1) for share in shares]
    assert np.concatenate(parts).tolist() == whole.order(1)[: sum(sizes)].tolist()
    assert len(loader(images)) == 2

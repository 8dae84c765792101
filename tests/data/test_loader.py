"""Views depend on (seed, epoch, image, view) alone; evaluation shows every image once, in order."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf

from groco_cli.data.loader import EvaluationTransform, Normalisation, ViewLoader, default_workers, evaluation_batches
from groco_cli.data.sources import FileSource, MemorySource, open_dataset
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


def loader(source, *, batch_size=4, workers=0, seed=0, augmentation="dino", views=2, local_views=0):
    drawn = AUGMENTATIONS[augmentation](views, local_views, 16, 8)
    return ViewLoader(source, drawn, batch_size=batch_size, normalisation=PLAIN, seed=seed, device=CPU, workers=workers)


def by_image(made: ViewLoader, epoch: int) -> dict[int, list[torch.Tensor]]:
    """Each image's views, by its number."""
    order = np.random.default_rng([made.seed, epoch]).permutation(len(made.source))
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
    shown = torch.cat(list(evaluation_batches(source, transform(), batch_size=batch_size, device=CPU, workers=0)))
    expected = []
    for i in range(len(source)):
        resized = tvf.resize(source.load(i), [20], interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
        expected.append(tvf.center_crop(resized, [16, 16]).float() / 255)
    torch.testing.assert_close(shown, torch.stack(expected))


def test_pictures_of_the_right_size_are_shown_as_they_are():
    source = in_memory(size=16)
    (shown,) = evaluation_batches(source, transform(resize=16), batch_size=12, device=CPU, workers=0)
    assert torch.equal(shown, source.images.float() / 255)


def test_normalisation_comes_last():
    source = in_memory()
    normalisation = Normalisation(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    (shown,) = evaluation_batches(source, transform(16, 16, normalisation), batch_size=12, device=CPU, workers=0)
    expected = tvf.normalize(source.images.float() / 255, [0.5, 0.25, 0.0], [0.5, 1.0, 2.0])
    torch.testing.assert_close(shown, expected)


def test_real_photographs_of_all_sizes_become_views(imagenet_jpegs):
    source = open_dataset(str(imagenet_jpegs), Path()).train
    made = ViewLoader(
        source,
        AUGMENTATIONS["dino"](2, 1, 64, 32),
        batch_size=50,
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


def test_a_cpu_decodes_by_itself_and_a_gpu_has_workers():
    assert default_workers(CPU) == 0
    assert default_workers(torch.device("cuda")) >= 1

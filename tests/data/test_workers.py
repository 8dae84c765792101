"""What workers cut from a picture, against torchvision's own crops; and who takes a bad picture's place."""

import io

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from PIL import Image
from torch.utils.data import default_collate

from groco_cli.data.counter import uniforms
from groco_cli.data.crops import CROP_DRAWS, crop_boxes
from groco_cli.data.decoding import Encoded
from groco_cli.data.sources import FileSource, MemorySource, open_dataset
from groco_cli.data.transforms import EvaluationTransform, Normalisation
from groco_cli.data.views import AUGMENTATIONS
from groco_cli.data.workers import CroppedViews, Request, WholePictures


@pytest.fixture
def photographs(imagenet_jpegs, tmp_path) -> FileSource:
    return open_dataset(str(imagenet_jpegs), tmp_path).train


@pytest.mark.parametrize("augmentation", ["dino", "simclr"])
def test_views_are_torchvision_s_resized_crops_of_the_boxes_drawn(photographs, augmentation):
    views = AUGMENTATIONS[augmentation](2, 2, 224, 96)
    worker = CroppedViews(photographs, views, seed=3)
    for sample in range(0, 250, 10):
        image = photographs.load(sample)
        for number, (view, crop) in enumerate(zip(views, worker.crops(5, sample), strict=True)):
            draws = uniforms(CROP_DRAWS, seed=3, epoch=5, view=number, samples=np.array([sample]))
            sides = (np.array([side]) for side in image.shape[1:])
            (box,) = crop_boxes(draws, *sides, scale=view.crop_scale, ratio=view.crop_ratio).tolist()
            expected = tvf.resized_crop(
                image, *box, [view.size] * 2, tvf.InterpolationMode(view.interpolation), antialias=True
            )
            assert torch.equal(crop, expected)


def large_photograph(photographs, size: tuple[int, int]) -> bytes:
    """One of the photographs, smooth and large, as from a camera."""
    picture = Image.fromarray(photographs.load(3).permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=92)
    return buffer.getvalue()


def test_large_photographs_are_shrunk_while_decoded_and_look_the_same(photographs, tmp_path):
    path = tmp_path / "camera.jpg"
    path.write_bytes(large_photograph(photographs, (4000, 3000)))
    views = AUGMENTATIONS["dino"](2, 0, 224, 96)
    source = FileSource((path,), None, ())
    asked = []

    class Watched(Encoded):
        def pixels(self, shrink: int = 1) -> torch.Tensor:
            asked.append(shrink)
            return super().pixels(shrink)

    class Camera(FileSource):
        def open(self, index: int) -> Watched:
            return Watched(path.read_bytes(), str(path))

    whole = FileSource((path,), None, ()).load(0)
    for epoch in range(5):
        shrunk = CroppedViews(Camera((path,), None, ()), views, seed=0).crops(epoch, 0)
        plain = CroppedViews(MemorySource(whole[None], None, ()), views, seed=0).crops(epoch, 0)
        for a, b in zip(shrunk, plain, strict=True):
            # The box may lie a quarter of a pixel of the view off: less than that share of a neighbour's difference.
            difference, to_neighbour = (a.float() - b.float()).abs().mean(), b.float().diff(dim=2).abs().mean()
            assert difference < 0.25 * to_neighbour
    assert set(asked) <= {1, 2, 4, 8}
    assert max(asked) > 1
    assert source.open(0).size == (3000, 4000)


def test_pictures_of_usual_size_are_never_shrunk(photographs):
    """A box must stay twice as large as its view, which one of 500 pixels never is at 224."""
    views = AUGMENTATIONS["dino"](2, 0, 224, 96)
    from groco_cli.data.workers import _shrink

    assert _shrink(np.array([[0, 0, 375, 500], [0, 0, 300, 300]]), views) == 1
    assert _shrink(np.array([[0, 0, 896, 1000], [0, 0, 3000, 3000]]), views) == 2
    assert _shrink(np.array([[0, 0, 895, 1000], [0, 0, 3000, 3000]]), views) == 1
    assert _shrink(np.array([[0, 0, 5000, 5000]] * 2), views) == 8


def request_of(samples: list[int], batch: list[int] | None = None, epoch: int = 0) -> Request:
    return Request(epoch, np.array(samples), np.array(batch or samples))


def test_a_batch_is_the_crops_of_its_pictures(picture_folder, tmp_path):
    source = open_dataset(str(picture_folder(*(f"{i}.png" for i in range(9)), size=(40, 30))), tmp_path).train
    worker = CroppedViews(source, AUGMENTATIONS["dino"](2, 1, 16, 8), seed=0)
    batch = worker.__getitems__(request_of([4, 1, 8]))
    assert batch.samples.tolist() == [4, 1, 8]
    expected = default_collate([worker.crops(0, sample) for sample in (4, 1, 8)])
    assert all(torch.equal(a, b) for a, b in zip(batch.pictures, expected, strict=True))
    assert batch.bad == []


def test_substitutes_come_from_outside_the_whole_batch_and_are_always_the_same(picture_folder, tmp_path):
    source = open_dataset(str(picture_folder(*(f"{i:02}.png" for i in range(30)), size=(20, 20))), tmp_path).train
    for bad in (3, 4):
        source.paths[bad].write_bytes(b"")
    worker = CroppedViews(source, AUGMENTATIONS["dino"](2, 0, 8, 8), seed=0, substitute=True)
    batch = list(range(10))
    taken = {}
    for epoch in range(40):
        whole = worker.__getitems__(request_of(batch, epoch=epoch))
        part = worker.__getitems__(request_of([2, 3], batch, epoch))
        assert part.samples.tolist() == whole.samples.tolist()[2:4]
        for bad in (3, 4):
            assert whole.samples[bad] >= 10
            taken.setdefault(bad, set()).add(int(whole.samples[bad]))
        assert {name for name, _ in whole.bad} == {str(source.paths[bad]) for bad in (3, 4)}
        kept = [n for n in batch if n not in (3, 4)]
        assert whole.samples[kept].tolist() == kept
        for view, crop in enumerate(worker.crops(epoch, int(whole.samples[3]))):
            assert torch.equal(whole.pictures[view][3], crop)
    assert all(len(substitutes) > 5 for substitutes in taken.values())


def test_without_substitutes_a_bad_picture_ends_the_batch(picture_folder, tmp_path):
    source = open_dataset(str(picture_folder("a.png", "b.png")), tmp_path).train
    source.paths[1].write_bytes(b"")
    batch = CroppedViews(source, AUGMENTATIONS["dino"](2, 0, 8, 8), seed=0).__getitems__(request_of([0, 1]))
    assert len(batch.samples) == 0
    assert [name for name, _ in batch.bad] == [str(source.paths[1])]


def test_bad_pictures_are_left_out_of_what_is_measured(picture_folder, tmp_path):
    source = open_dataset(str(picture_folder(*(f"{i}.png" for i in range(4)), size=(20, 20))), tmp_path).train
    source.paths[2].write_bytes(b"")
    transform = EvaluationTransform(resize=16, crop=16, normalisation=Normalisation())
    batch = WholePictures(source, transform).__getitems__([1, 2, 3])
    assert batch.samples.tolist() == [1, 3]
    assert [name for name, _ in batch.bad] == [str(source.paths[2])]
    expected = torch.stack([transform.pixels(source.load(i)) for i in (1, 3)])
    assert torch.equal(batch.pictures[0], expected)


def test_where_the_batch_is_all_there_is_nothing_can_take_a_bad_picture_s_place(picture_folder, tmp_path):
    source = open_dataset(str(picture_folder("a.png", "b.png", "c.png")), tmp_path).train
    source.paths[1].write_bytes(b"")
    worker = CroppedViews(source, AUGMENTATIONS["dino"](2, 0, 8, 8), seed=0, substitute=True)
    batch = worker.__getitems__(request_of([0, 1, 2]))
    assert len(batch.samples) == 0
    assert [name for name, _ in batch.bad] == [str(source.paths[1])]

"""What is drawn is what the loader draws: pixel by pixel, where the sheet says that a view is."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from groco_cli.data.contact_sheet import COLOURS, ContactSheet
from groco_cli.data.digits import digits
from groco_cli.data.loader import ViewLoader
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import FileSource, MemorySource, Source, open_dataset
from groco_cli.data.transforms import Normalisation
from groco_cli.data.views import AUGMENTATIONS, View
from groco_cli.data.workers import CroppedViews

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def sheet_of(source: Source, views: tuple[View, ...], **options) -> ContactSheet:
    usual = {"global_views": 2, "rows": 3, "epochs": 1, "seed": 0, "title": "pictures"}
    return ContactSheet(source=source, views=views, **(usual | options))


def trained_on(source: Source, views: tuple[View, ...], epoch: int, seed: int) -> dict[int, list[np.ndarray]]:
    """Each picture's views as a run draws them in batches of its own order, 8 bits."""
    loader = ViewLoader(
        source,
        views,
        batch_size=2,
        order=shuffled(len(source), seed),
        normalisation=PLAIN,
        seed=seed,
        device=torch.device("cpu"),
        workers=0,
    )
    batches = [list(zip(*batch, strict=True)) for batch in loader.epoch(epoch)]
    drawn = (image for batch in batches for image in batch)
    numbers = loader.order(epoch).tolist()
    return {
        number: [(view.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy() for view in image]
        for number, image in zip(numbers, drawn, strict=False)
    }


@pytest.fixture(params=["memory", "files", "shards"])
def source(request, picture_folder, imagenet_shards, tmp_path) -> Source:
    if request.param == "memory":
        pictures, labels = digits(train=False)
        return MemorySource(pictures[:12], labels[:12], tuple("0123456789"))
    if request.param == "files":
        folder = picture_folder(*(f"{i:02}.png" for i in range(12)), size=(120, 90))
        return open_dataset(str(folder), tmp_path).train
    return open_dataset(str(imagenet_shards / "groco-official-layout-16.tar"), tmp_path / "root").train


@pytest.mark.parametrize("augmentation", ["dino", "digits"])
def test_views_are_drawn_as_a_run_draws_them(source, augmentation):
    views = AUGMENTATIONS[augmentation](2, 1, 64, 32)
    sheet = sheet_of(source, views, epochs=2, seed=4)
    assert sheet.scale == 2
    image = np.asarray(sheet.draw())
    assert len(sheet.pictures) == 3
    for epoch in range(2):
        run = trained_on(source, views, epoch, seed=4)
        for row, number in enumerate(sheet.pictures):
            top = sheet.line(2 * row + epoch)
            for view, expected in enumerate(run[number]):
                side, left = 2 * len(expected), sheet.column(view)
                shown = image[top : top + side, left : left + side]
                # A view does not depend on its batch but for the last bit of a sum.
                enlarged = expected.repeat(2, axis=0).repeat(2, axis=1).astype(int)
                assert np.abs(shown - enlarged).max() <= 1
                assert (shown == enlarged).mean() > 0.99
                assert expected.std() > 0.5


def test_every_box_is_framed_where_its_view_was_cut(imagenet_jpegs, tmp_path):
    source = open_dataset(str(imagenet_jpegs), tmp_path).train
    views = AUGMENTATIONS["dino"](2, 6, 224, 96)
    sheet = sheet_of(source, views, rows=4)
    assert (sheet.scale, sheet.cell) == (1, 224)
    image = np.asarray(sheet.draw())
    assert len(set(COLOURS)) == len(views)
    for row, (number, picture) in enumerate(sheet.pictures.items()):
        height, width = picture.shape[1:]
        factor = 224 / max(height, width)
        boxes = CroppedViews(source, views, 0).boxes(0, np.array([number]), np.array([[height, width]]))[0]
        top, left, tall, wide = (boxes[0] * factor).round().astype(int)  # the first lies above the others
        shown = image[sheet.line(row) :, 16:]
        frame = [shown[top, left], shown[top, left + wide - 2], shown[top + tall - 2, left]]
        assert {tuple(pixel) for pixel in frame} == {ImageColor.getrgb(COLOURS[0])}


def test_pictures_that_are_shown_whole_have_no_frames():
    pictures, labels = digits(train=False)
    sheet = sheet_of(MemorySource(pictures, labels, ()), AUGMENTATIONS["digits"](2, 0, 32, 16), rows=1)
    image = np.asarray(sheet.draw())[sheet.line(0) :, 16:][:160, :160]
    assert np.array_equal(image, pictures[0].permute(1, 2, 0).numpy().repeat(5, 0).repeat(5, 1))
    assert "frames" not in " ".join(sheet.legend)


def test_a_broken_picture_gives_its_place_to_the_next(picture_folder):
    folder = picture_folder(*(f"{i}.png" for i in range(9)), size=(20, 30))
    paths = tuple(sorted(folder.iterdir()))
    for bad in (3, 4, 8):
        paths[bad].write_bytes(b"")
    sheet = sheet_of(FileSource(paths, None, ()), AUGMENTATIONS["small"](2, 0, 16, 8))
    sheet.draw()
    assert list(sheet.pictures) == [0, 5, 6]
    everything = sheet_of(FileSource(paths, None, ()), AUGMENTATIONS["small"](2, 0, 16, 8), rows=100)
    everything.draw()
    assert list(everything.pictures) == [0, 1, 2, 5, 6, 7]


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1), (4, 700)])
def test_odd_shapes_are_drawn(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "odd.png")
    source = FileSource((tmp_path / "odd.png",), None, ())
    drawn = sheet_of(source, AUGMENTATIONS["dino"](2, 2, 32, 16)).draw()
    assert drawn.width < 1000


def test_the_legend_says_what_is_done_to_which_views_and_fits():
    pictures, labels = digits(train=False)
    views = AUGMENTATIONS["dino"](3, 2, 224, 96)
    sheet = sheet_of(MemorySource(pictures, labels, ()), views, global_views=3, seed=7)
    lines = sheet.legend
    said = " ".join(line.strip() for line in lines)
    assert "seed 7; views pixel for pixel" in said
    for kind, view in (("global 1, 3", views[0]), ("global 2", views[1]), ("local 1, 2", views[3])):
        assert f"{kind}: {view}" in said
    image = np.asarray(sheet.draw())
    assert (image[: sheet.head - 60, -10:] == 255).all()  # no letter in the right margin


def test_names_too_long_or_not_text_are_drawn(picture_folder):
    folder = picture_folder("a.png", "b.png", size=(20, 20))
    odd = folder / ("x" * 200 + "\udcff.png")
    (folder / "a.png").rename(odd)
    drawn = sheet_of(FileSource((odd, folder / "b.png"), None, ()), AUGMENTATIONS["small"](2, 0, 16, 8)).draw()
    assert (np.asarray(drawn)[:, -10:] == 255).all()

"""Named sets in files, each through torchvision's own reader, from made-up pictures laid out like the real ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import loadmat

from groco_cli.data.sources import NAMED, FileSource
from groco_cli.data.sources.named import TORCHVISION

Meta = Callable[[str], Path]


def food101(layout) -> None:
    layout.write("food-101/meta/train.json", json.dumps({"pie": ["pie/1"], "apple": ["apple/1", "apple/2"]}))
    layout.write("food-101/meta/test.json", json.dumps({"pie": ["pie/3"], "apple": ["apple/3"]}))
    layout.pictures(*(f"food-101/images/{name}.jpg" for name in ("pie/1", "apple/1", "apple/2", "pie/3", "apple/3")))


def pets(layout) -> None:
    folder = "oxford-iiit-pet"
    layout.write(f"{folder}/annotations/trainval.txt", "Abyssinian_1 1 1 1\nboxer_dog_1 2 2 1\n")
    layout.write(f"{folder}/annotations/test.txt", "boxer_dog_2 2 2 1\nAbyssinian_2 1 1 1\n")
    names = ("Abyssinian_1", "boxer_dog_1", "boxer_dog_2", "Abyssinian_2")
    layout.pictures(*(f"{folder}/images/{name}.jpg" for name in names))


def dtd(layout) -> None:
    for split in ("train", "val", "test"):
        layout.write(f"dtd/dtd/labels/{split}1.txt", f"dotted/{split}.jpg\nbanded/{split}.jpg\n")
        layout.pictures(f"dtd/dtd/images/dotted/{split}.jpg", f"dtd/dtd/images/banded/{split}.jpg")


def aircraft(layout) -> None:
    data = "fgvc-aircraft-2013b/data"
    layout.write(f"{data}/variants.txt", "707-320\n727-200\nA300 B4\n")
    layout.write(f"{data}/images_variant_trainval.txt", "01 A300 B4\n02 707-320\n")
    layout.write(f"{data}/images_variant_test.txt", "03 727-200\n")
    layout.pictures(*(f"{data}/images/{name}.jpg" for name in ("01", "02", "03")))


def country211(layout) -> None:
    for split in ("train", "valid", "test"):
        layout.pictures(f"country211/{split}/AD/1.jpg", f"country211/{split}/BE/1.jpg")


def rendered_sst2(layout) -> None:
    for split in ("train", "valid", "test"):
        layout.pictures(f"rendered-sst2/{split}/negative/1.png", f"rendered-sst2/{split}/positive/1.png")


def gtsrb(layout) -> None:
    layout.pictures("gtsrb/GTSRB/Training/00000/1.ppm", "gtsrb/GTSRB/Training/00001/1.ppm")
    layout.pictures("gtsrb/GTSRB/Final_Test/Images/00000.ppm")
    layout.write("gtsrb/GT-final_test.csv", "Filename;ClassId\n00000.ppm;1\n")


def imagenette(layout) -> None:
    for split in ("train", "val"):
        layout.pictures(f"imagenette2/{split}/n01440764/1.JPEG", f"imagenette2/{split}/n03888257/1.jpeg")
        layout.pictures(f"imagenette2/{split}/n01440764/1.jpeg")


def imagenet(layout) -> None:
    for split in ("train", "val"):
        layout.pictures(f"imagenet/{split}/n01440764/1.JPEG", f"imagenet/{split}/n01443537/1.JPEG")
    names = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    torch.save((names, ["n01440764", "n01443537"]), layout.root / "imagenet/meta.bin")


def eurosat(layout) -> None:
    layout.pictures("eurosat/2750/Forest/1.jpg", "eurosat/2750/River/1.jpg", "eurosat/2750/River/2.jpg")


def sun397(layout) -> None:
    layout.write("SUN397/ClassName.txt", "/a/abbey\n/a/access/indoor\n")
    layout.pictures("SUN397/a/access/indoor/sun_b.jpg", "SUN397/a/abbey/sun_c.jpg", "SUN397/a/abbey/sun_a.jpg")


def places365(layout) -> None:
    layout.write("categories_places365.txt", "/a/airfield 0\n/a/alley 1\n")
    layout.write("places365_train_standard.txt", "/a/alley/1.jpg 1\n/a/airfield/1.jpg 0\n")
    layout.write("places365_val.txt", "1.jpg 1\n")
    layout.pictures("data_256_standard/a/alley/1.jpg", "data_256_standard/a/airfield/1.jpg", "val_256/1.jpg")


# How many images each part of a made-up set has, and the labels of its first and last training image.
IN_FILES = {
    "food101": (food101, 3, 2, (1, 0)),
    "oxford-iiit-pet": (pets, 2, 2, (0, 1)),
    "dtd": (dtd, 4, 2, (1, 0)),
    "fgvc-aircraft": (aircraft, 2, 1, (2, 0)),
    "country211": (country211, 4, 2, (0, 1)),
    "rendered-sst2": (rendered_sst2, 4, 2, (0, 1)),
    "gtsrb": (gtsrb, 2, 1, (0, 1)),
    "imagenette": (imagenette, 3, 3, (0, 1)),
    "imagenet": (imagenet, 2, 2, (0, 1)),
    "eurosat": (eurosat, 3, 0, (0, 1)),
    "sun397": (sun397, 3, 0, (0, 1)),
    "places365": (places365, 2, 1, (1, 0)),
}


@pytest.mark.usefixtures("unchecked", "offline")
@pytest.mark.parametrize("name", IN_FILES)
def test_a_set_in_files_is_read_through_torchvision(opened, layout, root: Path, name: str):
    lay_out, train, test, ends = IN_FILES[name]
    lay_out(layout)
    dataset = opened(name)
    assert isinstance(dataset.train, FileSource)
    assert (dataset.name, len(dataset.train), len(dataset.test or ())) == (name, train, test)
    assert (int(dataset.train.labels[0]), int(dataset.train.labels[-1])) == ends
    assert len(dataset.train.classes) >= 2
    entry = TORCHVISION[name]
    for part, pieces in ((dataset.train, entry.train), (dataset.test, entry.test)):
        reader = getattr(torchvision.datasets, entry.reader)
        theirs = [pair for piece in pieces for pair in reader(root / entry.folder, **piece)]
        ours = [(part.load(i), int(part.labels[i])) for i in range(len(part))] if part else []
        assert len(ours) == len(theirs)
        if name == "sun397":  # whose order is the disk's
            theirs.sort(key=lambda pair: [np.asarray(pair[0]).tolist() != o.permute(1, 2, 0).tolist() for o, _ in ours])
        for (picture, label), (image, their_label) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(picture.permute(1, 2, 0), np.asarray(image))
            assert label == their_label
        assert part is None or (part.labels.dtype, part.classes) == (torch.int64, dataset.train.classes)


@pytest.mark.usefixtures("offline")
def test_flowers_have_the_published_splits(opened, layout, meta: Meta):
    for name in ("imagelabels.mat", "setid.mat"):  # the real ones: torchvision checks them
        layout.write(f"flowers-102/{name}", meta(f"flowers-102/{name}").read_bytes())
    label_of = loadmat(meta("flowers-102/imagelabels.mat"))["labels"][0] - 1
    splits = loadmat(meta("flowers-102/setid.mat"))
    train = [*splits["trnid"][0], *splits["valid"][0]]
    test = [*splits["tstid"][0]]
    layout.pictures(*(f"flowers-102/jpg/image_{numbers[0]:05}.jpg" for numbers in (train, train[1020:], test)))
    dataset = opened("flowers102")
    assert (len(dataset.train), len(dataset.test), len(dataset.train.classes)) == (2040, 6149, 102)
    for part, numbers in ((dataset.train, train), (dataset.test, test)):
        assert [path.name for path in part.paths] == [f"image_{number:05}.jpg" for number in numbers]
        assert part.labels.tolist() == [label_of[number - 1] for number in numbers]


@pytest.mark.usefixtures("offline")
def test_stanford_cars_have_the_published_labels(opened, layout, meta: Meta):
    devkit = meta("stanford_cars/devkit")
    for name in ("cars_train_annos.mat", "cars_meta.mat"):
        layout.write(f"stanford_cars/devkit/{name}", (devkit / name).read_bytes())
    # The test labels are not among the files: those of train stand in for them.
    layout.write("stanford_cars/cars_test_annos_withlabels.mat", (devkit / "cars_train_annos.mat").read_bytes())
    layout.pictures("stanford_cars/cars_train/00001.jpg", "stanford_cars/cars_test/00001.jpg")
    source = opened("stanford-cars").train
    annotations = loadmat(devkit / "cars_train_annos.mat", squeeze_me=True)["annotations"]
    assert (len(source), len(source.classes)) == (8144, 196)
    assert source.labels.tolist() == [int(number) - 1 for number in annotations["class"]]


@pytest.mark.usefixtures("offline")
def test_a_set_whose_pictures_are_missing_is_told(refused, layout):
    food101(layout)
    for path in (layout.root / "food-101/images").rglob("*.jpg"):
        path.unlink()
    error = refused("food101")
    assert "cannot be downloaded" in error.message
    assert "food-101" in error.hint


@pytest.mark.usefixtures("unchecked", "offline")
def test_parts_with_different_classes_are_refused(refused, layout):
    dtd(layout)
    layout.write("dtd/dtd/labels/test1.txt", "banded/test.jpg\n")
    assert "different classes" in refused("dtd").message


def test_files_that_the_disk_lists_in_any_order_are_sorted(opened, layout):
    sun397(layout)
    assert [path.stem for path in opened("sun397").train.paths] == ["sun_a", "sun_c", "sun_b"]


def test_every_set_has_a_test_of_its_own_or_is_arrays():
    in_arrays = {"cifar10", "cifar100", "stl10", "stl10-unlabeled", "svhn", "mnist", "fashion-mnist", "kmnist", "usps"}
    assert {*IN_FILES, "flowers102", "stanford-cars", *in_arrays} == set(TORCHVISION)
    assert set(NAMED) == {"digits", *TORCHVISION}
    for entry in TORCHVISION.values():
        assert hasattr(torchvision.datasets, entry.reader)

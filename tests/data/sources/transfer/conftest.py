"""Small copies of the eleven sets, each laid out as the original and in its own formats."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from scipy.io import savemat


def aircraft(layout) -> None:
    data = "fgvc-aircraft-2013b/data"
    layout.write(f"{data}/variants.txt", "707-320\n727-200\nA300 B4\n")
    layout.write(f"{data}/images_variant_trainval.txt", "0100001 A300 B4\n0100002 707-320\n0100004 727-200\n")
    layout.write(f"{data}/images_variant_test.txt", "0100003 727-200\n")
    layout.pictures(*(f"{data}/images/010000{i}.jpg" for i in range(1, 5)))


def caltech101(layout) -> None:
    listed = {
        "train": "BACKGROUND_Google/image_0002.jpg 0\r\nyin_yang/image_0059.jpg 101\r\n\r\n",
        "test": "BACKGROUND_Google/image_0001.jpg 0\nyin_yang/image_0058.jpg 101\nyin_yang/image_0060.jpg 101\n",
    }
    for part, lines in listed.items():
        layout.write(f"caltech101/{part}.txt", lines)
        layout.pictures(
            *(f"caltech101/101_ObjectCategories/{line.split()[0]}" for line in lines.split("\n") if line.strip())
        )


def cars(layout) -> None:
    """Structs of one row, as MATLAB writes them; test annotations with the classes that the devkit leaves out."""
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    layout.write("stanford_cars/devkit/cars_meta.mat", mat(class_names=names))
    train = annotations([("00001.jpg", 2), ("00002.jpg", 1), ("00003.jpg", 2)])
    layout.write("stanford_cars/devkit/cars_train_annos.mat", mat(annotations=train))
    layout.write(
        "stanford_cars/cars_test_annos_withlabels.mat",
        mat(annotations=annotations([("00001.jpg", 1), ("00002.jpg", 2)])),
    )
    layout.pictures(*(f"stanford_cars/cars_train/0000{i}.jpg" for i in (1, 2, 3)))
    layout.pictures(*(f"stanford_cars/cars_test/0000{i}.jpg" for i in (1, 2)))


def annotations(rows: list[tuple[str, int]]) -> np.ndarray:
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    made = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, (name, label) in enumerate(rows):
        made[0, i] = (np.uint16(1), np.uint16(1), np.uint16(7), np.uint16(5), np.uint8(label), name)
    return made


def mat(**variables: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


def cifar(folder: str, parts: dict[str, list[int]], meta: str, key: str, names: str) -> Callable:
    """The python version: pickles of dictionaries, pictures as rows of 3,072 bytes."""

    def lay_out(layout) -> None:
        for seed, (part, labels) in enumerate(parts.items()):
            data = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
            layout.write(f"{folder}/{part}", pickle.dumps({"data": data, key: labels}))
        layout.write(f"{folder}/{meta}", pickle.dumps({names: ["apple", "bear", "clock"]}))

    return lay_out


def dtd(layout) -> None:
    for split in ("train", "val", "test"):
        layout.write(f"dtd/dtd/labels/{split}1.txt", f"banded/banded_{split}.jpg\ndotted/dotted_{split}.jpg\n")
        layout.pictures(f"dtd/dtd/images/banded/banded_{split}.jpg", f"dtd/dtd/images/dotted/dotted_{split}.jpg")


def flowers(layout) -> None:
    layout.write("flowers-102/imagelabels.mat", mat(labels=np.array([[102, 1, 2, 102, 1, 2, 2]])))
    layout.write(
        "flowers-102/setid.mat", mat(trnid=np.array([[3, 1]]), valid=np.array([[5, 7]]), tstid=np.array([[6, 2, 4]]))
    )
    layout.pictures(*(f"flowers-102/jpg/image_{i:05}.jpg" for i in range(1, 8)))


def food(layout) -> None:
    layout.write("food-101/meta/train.json", json.dumps({"pie": ["pie/1"], "apple": ["apple/1", "apple/2"]}))
    layout.write("food-101/meta/test.json", json.dumps({"pie": ["pie/3"], "apple": ["apple/3"]}))
    layout.pictures(*(f"food-101/images/{name}.jpg" for name in ("pie/1", "apple/1", "apple/2", "pie/3", "apple/3")))


def pets(layout) -> None:
    folder = "oxford-iiit-pet"
    layout.write(f"{folder}/annotations/trainval.txt", "Abyssinian_1 1 1 1\nboxer_dog_1 2 2 1\n")
    layout.write(f"{folder}/annotations/test.txt", "boxer_dog_2 2 2 1\nAbyssinian_2 1 1 1\nboxer_dog_3 2 2 1\n")
    names = ("Abyssinian_1", "boxer_dog_1", "boxer_dog_2", "Abyssinian_2", "boxer_dog_3")
    layout.pictures(*(f"{folder}/images/{name}.jpg" for name in names))


def sun397(layout) -> None:
    layout.write("SUN397/ClassName.txt", "/a/abbey\n/a/access/indoor\n/b/bar\n")
    layout.write("SUN397/Training_01.txt", "/b/bar/sun_c.jpg\n/a/access/indoor/sun_a.jpg\n/a/abbey/sun_a.jpg\n")
    layout.write("SUN397/Testing_01.txt", "/a/abbey/sun_b.jpg\n/b/bar/sun_d.jpg\n")
    names = (
        "b/bar/sun_c",
        "a/access/indoor/sun_a",
        "a/abbey/sun_a",
        "a/abbey/sun_b",
        "b/bar/sun_d",
        "b/bar/sun_not_listed",
    )
    layout.pictures(*(f"SUN397/{name}.jpg" for name in names))


ANNOTATION = """<annotation>
\t<folder>VOC2007</folder>
\t<filename>{name}.jpg</filename>
\t<source><database>The VOC2007 Database</database></source>
\t<owner><name>someone</name></owner>
\t<size><width>8</width><height>6</height><depth>3</depth></size>
{objects}</annotation>
"""
OBJECT = """\t<object>
\t\t<name>{label}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>
\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox>
\t\t<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
\t</object>
"""


def annotate(layout, name: str, objects: list[tuple[str, int]]) -> None:
    things = "".join(OBJECT.format(label=label, difficult=difficult) for label, difficult in objects)
    layout.write(f"VOCdevkit/VOC2007/Annotations/{name}.xml", ANNOTATION.format(name=name, objects=things))


def voc2007(layout) -> None:
    objects = {
        "000005": [("chair", 0), ("chair", 1), ("person", 1)],
        "000007": [("car", 0)],
        "000001": [("dog", 0), ("person", 0)],
        "000002": [("train", 1)],
    }
    for name, things in objects.items():
        annotate(layout, name, things)
    layout.write("VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "000005\n000007\n")
    layout.write("VOCdevkit/VOC2007/ImageSets/Main/test.txt", "000001\n000002\n")
    layout.pictures(*(f"VOCdevkit/VOC2007/JPEGImages/{name}.jpg" for name in objects))


# How each is laid out; the stems of its pictures' names (none where they are arrays) and their classes (flowers' by
# number), in training and in testing.
SMALL = {
    "aircraft": (
        aircraft,
        (["0100001", "0100002", "0100004"], ["A300 B4", "707-320", "727-200"]),
        (["0100003"], ["727-200"]),
    ),
    "caltech101": (
        caltech101,
        (["image_0002", "image_0059"], ["BACKGROUND_Google", "yin_yang"]),
        (["image_0001", "image_0058", "image_0060"], ["BACKGROUND_Google", "yin_yang", "yin_yang"]),
    ),
    "cars": (
        cars,
        (["00001", "00002", "00003"], ["Acura RL Sedan 2012", "AM General Hummer SUV 2000", "Acura RL Sedan 2012"]),
        (["00001", "00002"], ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]),
    ),
    "cifar10": (
        cifar(
            "cifar-10-batches-py",
            {**{f"data_batch_{i}": [i % 3] for i in range(1, 6)}, "test_batch": [2, 0]},
            "batches.meta",
            "labels",
            "label_names",
        ),
        ([], ["bear", "clock", "apple", "bear", "clock"]),
        ([], ["clock", "apple"]),
    ),
    "cifar100": (
        cifar("cifar-100-python", {"train": [2, 1, 0], "test": [1]}, "meta", "fine_labels", "fine_label_names"),
        ([], ["clock", "bear", "apple"]),
        ([], ["bear"]),
    ),
    "dtd": (
        dtd,
        (["banded_train", "dotted_train", "banded_val", "dotted_val"], ["banded", "dotted"] * 2),
        (["banded_test", "dotted_test"], ["banded", "dotted"]),
    ),
    "flowers": (
        flowers,
        (["image_00003", "image_00001", "image_00005", "image_00007"], [1, 101, 0, 1]),
        (["image_00006", "image_00002", "image_00004"], [1, 0, 101]),
    ),
    "food": (food, (["1", "1", "2"], ["pie", "apple", "apple"]), (["3", "3"], ["pie", "apple"])),
    "pets": (
        pets,
        (["Abyssinian_1", "boxer_dog_1"], ["Abyssinian", "Boxer Dog"]),
        (["boxer_dog_2", "Abyssinian_2", "boxer_dog_3"], ["Boxer Dog", "Abyssinian", "Boxer Dog"]),
    ),
    "sun397": (
        sun397,
        (["sun_c", "sun_a", "sun_a"], ["bar", "access/indoor", "abbey"]),
        (["sun_b", "sun_d"], ["abbey", "bar"]),
    ),
    "voc2007": (voc2007, (["000005", "000007"], []), (["000001", "000002"], [])),
}


@pytest.fixture
def small() -> dict[str, tuple]:
    return SMALL


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    """torchvision takes made-up files for the published ones, and reaches nothing outside."""
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", refuse)

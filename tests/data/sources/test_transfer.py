"""The eleven sets of transfer, each on a small copy laid out as the original, in its own formats."""

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import loadmat, savemat

from groco_cli.data.sources.base import FileSource
from groco_cli.data.sources.transfer import (
    TRANSFER_SETS,
    Failed,
    Missing,
    ObjectSource,
    TransferSet,
    open_transfer_set,
)

Meta = Callable[[str], Path]


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
def trusting(monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    """torchvision takes made-up files for the published ones, and reaches nothing outside."""
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("name", TRANSFER_SETS)
def test_a_set_laid_out_as_the_original_is_read_with_its_split(layout, root: Path, name: str):
    lay_out, *expected = SMALL[name]
    lay_out(layout)
    opened = open_transfer_set(name, root)
    assert isinstance(opened, TransferSet), opened
    for source, (pictures, classes) in zip((opened.train, opened.test), expected, strict=True):
        if pictures:
            assert isinstance(source, FileSource)
            assert [path.stem for path in source.paths] == pictures
        if classes:
            found = [source.classes[label] for label in source.labels]
            assert classes in (found, source.labels.tolist())
            assert source.labels.dtype == torch.int64
        assert source.classes == opened.train.classes
        assert source.load(0).shape[0] == 3
    entry = TRANSFER_SETS[name]
    assert opened.remark == (
        f"partial copy: {len(opened.train)} of {entry.train:,} training images, "
        f"{len(opened.test)} of {entry.test:,} test images"
    )


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("name", "wanted"), [(name, file) for name, entry in TRANSFER_SETS.items() for file in entry.files]
)
def test_a_piece_that_is_not_there_is_named(layout, root: Path, name: str, wanted: str):
    SMALL[name][0](layout)
    (root / wanted).rename(root / "elsewhere")
    assert open_transfer_set(name, root) == Missing(name=name, wanted=(root / wanted,))


def test_a_set_that_is_not_there_at_all_names_its_folder(tmp_path: Path):
    for name, entry in TRANSFER_SETS.items():
        folder = tmp_path / Path(entry.files[0]).parts[0]
        assert open_transfer_set(name, tmp_path) == Missing(name=name, wanted=(folder,))
        assert all(Path(file).parts[0] == folder.name for file in entry.files)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("name", "file", "content", "told"),
    [
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt", "03 Zeppelin\n", "Zeppelin"),
        ("caltech101", "caltech101/train.txt", "image_0001.jpg 0\n", "train.txt, line 1: 'image_0001.jpg 0'"),
        ("caltech101", "caltech101/train.txt", "../../x/image_0001.jpg 0\n", "line 1"),
        ("caltech101", "caltech101/train.txt", "\r\n", "no picture in it"),
        ("caltech101", "caltech101/train.txt", b"\xff\xfe\x00", "train.txt: cannot be read"),
        (
            "caltech101",
            "caltech101/train.txt",
            "yin_yang/image_0058.jpg 101\n",
            "1 of the training pictures are for testing too",
        ),
        ("caltech101", "caltech101/test.txt", "anchor/image_0001.jpg 3\n", "no training picture of anchor"),
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat", b"no MATLAB file", "cannot be read"),
        ("cifar10", "cifar-10-batches-py/test_batch", b"half a", "cannot be read"),
        ("dtd", "dtd/dtd/labels/test1.txt", "banded/banded_test.jpg\n", "different classes"),
        ("flowers", "flowers-102/setid.mat", b"", "cannot be read"),
        ("food", "food-101/meta/test.json", "{", "cannot be read"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "boxer_dog_2\n", "cannot be read"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "boxer_dog_2 2 2 1\n", "different classes"),
        ("sun397", "SUN397/Testing_01.txt", "/a/sun_b.jpg\n", "Testing_01.txt, line 1"),
        ("sun397", "SUN397/Testing_01.txt", "/a/abbey/sun_x.jpg\n", "1 of 1 listed pictures are missing"),
        ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/test.txt", "\n", "test.txt: no picture in it"),
        ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/test.txt", "000009\n", "000009.xml: cannot be read"),
        ("voc2007", "VOCdevkit/VOC2007/Annotations/000001.xml", "<annotation>", "000001.xml: cannot be read"),
        ("voc2007", "VOCdevkit/VOC2007/JPEGImages/000005.jpg", b"no picture", None),
    ],
)
def test_a_damaged_piece_is_told_in_one_line(
    layout, root: Path, name: str, file: str, content: str | bytes, told: str | None
):
    SMALL[name][0](layout)
    layout.write(file, content)
    opened = open_transfer_set(name, root)
    if told is None:  # one bad picture among good ones is met when it is read
        assert isinstance(opened, TransferSet)
        return
    assert isinstance(opened, Failed)
    assert told in opened.error.message
    assert "\n" not in opened.error.message


def test_cars_without_test_labels_are_told(layout, root: Path, meta: Meta):
    cars(layout)
    published = meta("stanford_cars/devkit/cars_test_annos.mat").read_bytes()
    layout.write("stanford_cars/cars_test_annos_withlabels.mat", published)
    opened = open_transfer_set("cars", root)
    assert isinstance(opened, Failed)
    assert "cannot be read" in opened.error.message


def test_an_unknown_class_of_object_is_told(layout, root: Path):
    voc2007(layout)
    annotate(layout, "000001", [("unicorn", 0)])
    opened = open_transfer_set("voc2007", root)
    assert isinstance(opened, Failed)
    assert "000001.xml" in opened.error.message


def test_objects_make_classes_shown_or_difficult(layout, root: Path):
    voc2007(layout)
    opened = open_transfer_set("voc2007", root)
    assert isinstance(opened, TransferSet)

    def named(source: ObjectSource, table: torch.Tensor) -> list[set[str]]:
        return [{source.classes[label] for label in row.nonzero()[:, 0].tolist()} for row in table]

    assert named(opened.train, opened.train.shown) == [{"chair"}, {"car"}]
    assert named(opened.train, opened.train.difficult) == [{"person"}, set()]  # a chair is also plainly shown
    assert named(opened.test, opened.test.shown) == [{"dog", "person"}, set()]
    assert named(opened.test, opened.test.difficult) == [set(), {"train"}]
    turned = opened.train.subset(torch.tensor([1, 0]))
    assert named(turned, turned.shown) == [{"car"}, {"chair"}]
    assert [path.stem for path in turned.paths] == ["000007", "000005"]
    assert len(opened.train.classes) == 20
    assert list(opened.train.classes) == sorted(opened.train.classes)


def test_the_published_lists_of_caltech101_are_read_whole(layout, root: Path, meta: Meta):
    for part in ("train", "test"):
        layout.write(f"caltech101/{part}.txt", meta(f"caltech101-splits/{part}.txt").read_bytes())
    (root / "caltech101/101_ObjectCategories").mkdir()
    opened = open_transfer_set("caltech101", root)
    assert isinstance(opened, Failed)  # no picture is there, but all that are listed are asked for
    assert "2,416 of 2,416 listed pictures are missing" in opened.error.message
    dataset = TRANSFER_SETS["caltech101"].read(root)
    entry = TRANSFER_SETS["caltech101"]
    assert (len(dataset.train), len(dataset.test), len(dataset.train.classes)) == (entry.train, entry.test, 102)
    for part, source in (("train", dataset.train), ("test", dataset.test)):
        lines = [
            line.split() for line in meta(f"caltech101-splits/{part}.txt").read_text().splitlines() if line.strip()
        ]
        assert [str(path.relative_to(root / "caltech101/101_ObjectCategories")) for path in source.paths] == [
            name for name, _ in lines
        ]
        assert [int(number) for _, number in lines] == source.labels.tolist()  # the lists' numbers are in order of name


def test_the_published_flowers_and_cars_have_the_published_counts(layout, root: Path, meta: Meta):
    splits = loadmat(meta("flowers-102/setid.mat"))
    entry = TRANSFER_SETS["flowers"]
    assert (splits["trnid"].size + splits["valid"].size, splits["tstid"].size) == (entry.train, entry.test)
    entry = TRANSFER_SETS["cars"]
    devkit = meta("stanford_cars/devkit")
    counts = [loadmat(devkit / f"cars_{part}_annos.mat")["annotations"].size for part in ("train", "test")]
    assert counts == [entry.train, entry.test]


def test_real_cifar10_is_whole(cifar_root: Path):
    opened = open_transfer_set("cifar10", cifar_root)
    assert isinstance(opened, TransferSet)
    assert (len(opened.train), len(opened.test), opened.remark) == (50_000, 10_000, "")


def test_more_pictures_than_were_published_are_another_split(layout, root: Path, monkeypatch: pytest.MonkeyPatch):
    sun397(layout)
    monkeypatch.setitem(TRANSFER_SETS, "sun397", replace(TRANSFER_SETS["sun397"], train=2, test=2))
    opened = open_transfer_set("sun397", root)
    assert isinstance(opened, TransferSet)
    assert opened.remark == "another split: 3 training and 2 test images, not 2 and 2"

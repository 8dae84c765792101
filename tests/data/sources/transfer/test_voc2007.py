"""VOC2007's objects as classes that a picture shows; test_sets.py damages the files."""

from pathlib import Path

import torch

from groco_cli.data.sources.transfer import Failed, ObjectSource, TransferSet, open_transfer_set


def test_objects_make_classes_shown_or_difficult(layout, small, root: Path):
    small["voc2007"][0](layout)
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


def test_an_unknown_class_of_object_is_told(layout, small, root: Path):
    small["voc2007"][0](layout)
    annotation = root / "VOCdevkit/VOC2007/Annotations/000001.xml"
    annotation.write_text(annotation.read_text().replace("dog", "unicorn"))
    opened = open_transfer_set("voc2007", root)
    assert isinstance(opened, Failed)
    assert "000001.xml" in opened.error.message

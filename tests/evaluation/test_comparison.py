"""What is compared: names, data in common, baselines, and the shape of the record."""

from dataclasses import replace
from pathlib import Path

import pytest

from groco_cli.data.sources import Dataset
from groco_cli.errors import UsageError
from groco_cli.evaluation.comparison import (
    Compared,
    baselines,
    chosen_data,
    named_checkpoints,
    paper_rows,
    recipe_notes,
    trained_on,
    with_record_of_one,
)
from groco_cli.evaluation.protocol import untrained
from groco_cli.models import EncoderMetadata

SMALL = EncoderMetadata(arch="test_resnet", image_size=32, resize=32, method="groco", epoch=9, data="digits")


def compared(name: str, metadata: EncoderMetadata = SMALL) -> Compared:
    encoder = untrained(metadata)
    encoder.metadata = metadata
    return Compared(name=name, path=Path(f"{name}.safetensors"), encoder=encoder)


def test_what_the_environment_overrides_is_said(monkeypatch, capsys):
    both = [compared("a"), compared("b", replace(SMALL, data="cifar10"))]
    monkeypatch.setenv("GROCO_DATA", "photos")
    assert chosen_data("photos", both) == "photos"
    assert "data photos from GROCO_DATA in the environment; trained on cifar10, digits" in capsys.readouterr().err
    assert chosen_data("others", both) == "others"
    monkeypatch.setenv("GROCO_DATA", "digits")
    assert chosen_data("digits", both[:1]) == "digits"
    assert chosen_data(None, both[:1]) == "digits"
    assert capsys.readouterr().err == ""


def test_names_are_as_short_as_tells_them_apart():
    names = named_checkpoints([Path("x/a/latest.pth"), Path("x/b/latest.pth"), Path("x/a/latest.pth")])
    assert names == {"a": Path("x/a/latest.pth"), "b": Path("x/b/latest.pth")}
    ninth, last, other = (Path(f"runs/{name}.safetensors") for name in (
        "a/checkpoints/epoch-0009", "a/checkpoints/latest", "b/checkpoints/epoch-0009"
    ))  # fmt: skip
    assert list(named_checkpoints([last])) == ["a"]
    assert list(named_checkpoints([last, ninth])) == ["a", "epoch-0009"]
    assert list(named_checkpoints([ninth, other])) == ["a/epoch-0009", "b/epoch-0009"]
    assert list(named_checkpoints([Path("latest.pth")])) == ["latest"]
    assert list(named_checkpoints([Path("x/a.pth")])) == ["a"]
    assert list(named_checkpoints([Path("a.pth"), Path("a.safetensors")])) == ["a.pth", "a.safetensors"]
    assert list(named_checkpoints([Path()])) == ["."]
    assert list(named_checkpoints([Path("/"), Path("x/a.pth")])) == ["/", "a"]


def test_the_data_are_those_that_all_were_trained_on():
    assert trained_on([compared("a"), compared("b")]) == "digits"
    with pytest.raises(UsageError, match=r"a\.safetensors was trained on digits, b\.safetensors on cifar10"):
        trained_on([compared("a"), compared("b", replace(SMALL, data="cifar10"))])
    with pytest.raises(UsageError, match=r"b\.safetensors does not say"):
        trained_on([compared("a"), compared("b", replace(SMALL, data=""))])


def test_baselines_are_shared_by_encoders_of_a_kind():
    alike = baselines([compared("a"), compared("b", replace(SMALL, method="infonce", epoch=3))])
    assert list(alike) == ["untrained", "pixels"]
    unlike = baselines([compared("a"), compared("b", replace(SMALL, arch="resnet10t"))])
    assert list(unlike) == ["untrained, as for a", "untrained, as for b", "pixels"]
    large = baselines([compared("a", replace(SMALL, image_size=64, resize=64)), compared("b")])
    assert list(large) == ["untrained, as for a", "untrained, as for b", "pixels, 32×32, as for a", "pixels, as for b"]
    assert [encoder.metadata.arch for encoder in unlike.values()] == ["test_resnet", "resnet10t", "pixels"]


def test_the_record_of_one_stands_at_the_top_too():
    one, two = {"checkpoint": "a", "knn": 1}, {"checkpoint": "b", "knn": 2}
    assert with_record_of_one({"data": "x"}, [one]) == {"checkpoint": "a", "knn": 1, "data": "x", "encoders": [one]}
    assert with_record_of_one({"data": "x"}, [one, two]) == {"data": "x", "encoders": [one, two]}


def test_the_papers_rows_are_for_imagenet_alone(noise, capsys):
    assert paper_rows([compared("a")], Dataset("photos", noise(6), noise(3)), "k-NN") == []
    assert capsys.readouterr().err.startswith("warning: --paper: the paper's k-NN is on ImageNet")


def test_the_recipes_row_is_noted():
    ours = compared("a", replace(SMALL, settings='recipe = "groco-2views-100ep"'))
    assert recipe_notes([ours, compared("b")]) == [
        "a began from recipe groco-2views-100ep: paper: GroCo, 2×224, 100 ep"
    ]

"""`groco transfer` as it is typed: three small sets laid out as the originals, the others missing."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from groco_cli.data.sources.transfer import TRANSFER_SETS
from groco_cli.models import EncoderMetadata, create_encoder
from groco_cli.models.conversion import save_checkpoint

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_checkpoint(path, create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=32)), {})
    return path


def paint(path: Path, colour: str, seed: int) -> None:
    """A picture of one colour under some noise, so that any encoder can tell the classes apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-15, 16, (36, 40, 3))
    Image.fromarray((np.array(COLOURS[colour]) + noise).astype(np.uint8)).save(path)


def lay_out_dtd(root: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        names = [f"{colour}/{colour}_{split}_{i}.jpg" for colour in COLOURS for i in range(4)]
        for i, name in enumerate(names):
            paint(root / "dtd/dtd/images" / name, name.partition("/")[0], 100 * seed + i)
        labels = root / f"dtd/dtd/labels/{split}1.txt"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("".join(f"{name}\n" for name in names))


def lay_out_caltech101(root: Path) -> None:
    for seed, part in enumerate(("train", "test")):
        names = [f"{colour}/image_{10 * seed + i:04}.jpg" for colour in COLOURS for i in range(4)]
        for i, name in enumerate(names):
            paint(root / "caltech101/101_ObjectCategories" / name, name.partition("/")[0], 1000 + 100 * seed + i)
        (root / f"caltech101/{part}.txt").write_bytes("".join(f"{name} 0\r\n" for name in names).encode())


def lay_out_voc2007(root: Path) -> None:
    folder = root / "VOCdevkit/VOC2007"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    shown = {"red": "car", "green": "sheep", "blue": "boat"}
    for seed, part in enumerate(("trainval", "test")):
        numbers = {f"{1000 * seed + i:06}": colour for i, colour in enumerate(4 * list(COLOURS))}
        for i, (number, colour) in enumerate(numbers.items()):
            paint(folder / f"JPEGImages/{number}.jpg", colour, 2000 + 100 * seed + i)
            things = "".join(
                f"<object><name>{name}</name><difficult>{difficult}</difficult></object>"
                for name, difficult in ((shown[colour], 0), ("person", 1))
            )
            (folder / f"Annotations/{number}.xml").write_text(f"<annotation>{things}</annotation>")
        (folder / f"ImageSets/Main/{part}.txt").write_text("".join(f"{number}\n" for number in numbers))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for lay_out in (lay_out_dtd, lay_out_caltech101, lay_out_voc2007):
        lay_out(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def transfer(call_groco, tiny: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Types `groco transfer` with the small encoder and the small sets."""
    monkeypatch.setenv("COLUMNS", "300")
    options = ("--data-root", str(root), "--device", "cpu", "--workers", "0")
    return lambda *more: call_groco("transfer", str(tiny), *options, *(() if "--k" in more else ("--k", "4")), *more)


def test_sets_that_are_there_are_scored_and_the_others_named(transfer, tiny, root):
    done = transfer("--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["k"], printed["temperature"]) == (4, 0.07)
    assert "cpu" in printed["device"]
    assert "FAISS" in printed["backend"]
    (encoder,) = printed["encoders"]
    assert encoder["checkpoint"] == str(tiny)
    assert list(encoder["sets"]) == ["caltech101", "dtd", "voc2007"]
    for score in encoder["sets"].values():
        assert (score["top1"], score["mean_per_class"]) == (1.0, 1.0)  # colours are told apart without training
        assert (score["queries"], score["multi_label"]) == (12, score is encoder["sets"]["voc2007"])
    assert encoder["sets"]["dtd"]["remark"] == ("partial copy: 24 of 3,760 training images, 12 of 1,880 test images")
    assert len(encoder["sets"]["voc2007"]["absent"]) == 17
    assert list(encoder["missing"]) == ["aircraft", "cars", "cifar10", "cifar100", "flowers", "food", "pets", "sun397"]
    assert encoder["missing"]["cars"] == [str(root / "stanford_cars")]
    assert encoder["average"] == {"sets": ["caltech101", "dtd", "voc2007"], "top1": 1.0, "mean_per_class": 1.0}
    assert encoder["failed"] == {}


def test_features_are_kept_and_it_is_said_when_they_are_found(transfer, root):
    first, second, without = (transfer("--json", *more) for more in ((), (), ("--no-cache",)))
    assert first.stdout == second.stdout == without.stdout
    assert "from the cache" not in first.stderr + without.stderr
    assert "features   tiny, dtd train: from the cache " in second.stderr
    assert second.stderr.count("from the cache") == len(list((root / "features").iterdir())) == 6


def test_the_table_says_it_all(transfer, root):
    done = transfer("--paper")
    assert done.returncode == 0, done.stderr
    for said in (
        "Transfer by k-NN, k = 4, T 0.07",
        "average of 3 of 11 sets",
        "features on cpu",
        "search by FAISS",
        "dtd: partial copy: 24 of 3,760 training images",
        f"pets is missing: there is no {root / 'oxford-iiit-pet'}",
        "voc2007: top-1 is the hit rate, mean per class the 11-point mAP",
        "GroCo",
        "the paper's",
    ):
        assert said in done.stdout, said
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("│")}
    assert "71.0" in lines["dtd"]
    assert "missing" in lines["pets"]
    assert "80.6" in lines["pets"]
    files = ("--csv", str(root / "t.csv"), "--latex", str(root / "t.tex"))
    assert transfer("--paper", "--sets", "dtd", *files).returncode == 0
    assert "paper: GroCo,dtd,printed,,,,,0.71" in (root / "t.csv").read_text(encoding="utf-8")
    assert r"dtd & 100.00 & 100.00 & 68.7 &" in (root / "t.tex").read_text(encoding="utf-8")
    assert f"{(81.2 + 71.0 + 74.6) / 3:.2f}" in lines["average"]


def test_chosen_sets_alone_are_scored_in_the_tables_order(transfer):
    printed = json.loads(transfer("--sets", "voc2007", "--sets", "dtd", "--json").stdout)
    (encoder,) = printed["encoders"]
    assert list(encoder["sets"]) == ["dtd", "voc2007"]
    assert encoder["missing"] == {}
    assert "average of 1 of 11 sets" in transfer("--sets", "dtd").stdout


def test_help_names_all_sets(call_groco):
    assert f"One of {', '.join(TRANSFER_SETS)}; may" in " ".join(call_groco("transfer", "--help").stdout.split())


def test_votes_may_weigh_the_same(transfer):
    printed = json.loads(transfer("--sets", "dtd", "--temperature", "inf", "--json").stdout)
    assert printed["temperature"] is None
    assert printed["encoders"][0]["sets"]["dtd"]["top1"] == 1.0


def test_a_linear_classifier_is_scored_beside_the_neighbours(transfer, root):
    printed = json.loads(transfer("--linear", "--json").stdout)
    nearest, linear = printed["encoders"]
    assert (nearest["classifier"], linear["classifier"]) == ("k-NN", "linear")
    assert list(linear["sets"]) == ["caltech101", "dtd", "voc2007"]
    assert {score["top1"] for score in linear["sets"].values()} == {1.0}
    assert linear["sets"]["dtd"]["chosen_on"] == "its validation split (12 images)"
    assert linear["sets"]["caltech101"]["chosen_on"] == "2 of its 12 training images, drawn with seed 0"
    assert "cars" in linear["missing"]
    shown = transfer("--linear", "--sets", "dtd").stdout
    assert "tiny, linear top-1 %" in shown
    assert "linear: logistic regression by L-BFGS on un-augmented features, λ the best of 12 between 1e-06 and" in shown
    assert "dtd, tiny, linear: λ = " in shown


def test_several_checkpoints_stand_side_by_side(transfer, tiny, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny.read_bytes())
    done = transfer(str(other), "--sets", "dtd", "--csv", str(tmp_path / "new/scores.csv"))
    assert done.returncode == 0, done.stderr
    assert "tiny top-1 %" in done.stdout
    assert "other mean per class %" in done.stdout
    with (tmp_path / "new/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["encoder"], row["set"], float(row["top1"])) for row in rows] == [
        ("tiny", "dtd", 1),
        ("other", "dtd", 1),
    ]
    assert f"table: {tmp_path / 'new/scores.csv'}" in done.stderr


def test_a_damaged_set_is_a_line_and_the_others_are_scored(transfer, root):
    (root / "dtd/dtd/images/red/red_test_2.jpg").write_bytes(b"no picture")
    (root / "caltech101/test.txt").write_text("image_0001.jpg\n")
    done = transfer()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "average of 1 of 11 sets" in done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [error.split(":")[1].strip() for error in errors[:2]] == ["caltech101", "dtd"]
    assert "red_test_2.jpg" in errors[1]
    assert "2 failed and are in no average" in errors[2]
    (encoder,) = json.loads(transfer("--json").stdout)["encoders"]
    assert list(encoder["failed"]) == ["caltech101", "dtd"]
    assert encoder["average"]["sets"] == ["voc2007"]


def test_too_many_neighbours_for_a_small_set_fail_that_set_alone(transfer):
    done = transfer("--sets", "dtd", "--sets", "voc2007", "--k", "13", "--json")
    (encoder,) = json.loads(done.stdout)["encoders"]
    assert done.returncode == 1
    assert list(encoder["failed"]) == ["voc2007"]
    assert "--k 13 is more than the 12 images" in encoder["failed"]["voc2007"]


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        (["--sets", "pet"], "--sets pet", "did you mean 'pets'"),
        (["--sets", "imagenet"], "--sets imagenet", "aircraft, caltech101, cars"),
        (["--sets", "cars", "--sets", "pets"], "none of cars, pets is below", "--data-root"),
        (["--data-root", "nowhere"], "none of aircraft, ", "docs/transfer.md"),
        (["--k", "0"], "--k 0", "--k 20"),
        (["--k", "1", "--k", "20"], "--k 1 and 20: transfer takes one", "type --k 20"),
        (["--temperature", "0"], "--temperature 0", "must be positive"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(transfer, tmp_path, monkeypatch, options, what, remedy):
    monkeypatch.chdir(tmp_path)
    failed = transfer(*options)
    assert (failed.returncode, failed.stdout) == (2, "")
    (line,) = failed.stderr.strip().splitlines()
    assert what in line
    assert remedy in line
    assert not (tmp_path / "nowhere").exists()


def test_a_checkpoint_that_is_not_there_is_told(call_groco, root):
    failed = call_groco("transfer", "nowhere.safetensors", "--data-root", str(root))
    assert failed.returncode == 2
    assert "no checkpoint nowhere.safetensors" in failed.stderr

"""`groco data` as it is typed: what it sees, the sheet, the shards it writes, and what a mistake looks like."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from groco_cli.data.contact_sheet import ContactSheet
from groco_cli.data.sources import open_dataset
from groco_cli.engine.configuration import to_toml
from groco_cli.engine.recipes import RECIPES
from groco_cli.engine.settings import ViewSettings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    """An empty folder to type in."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GROCO_DATA_ROOT", str(tmp_path / "root"))
    return folder


def test_without_anything_the_digits_are_looked_at(call_groco, elsewhere):
    shown = call_groco("data", "--json")
    assert shown.returncode == 0, shown.stderr
    printed = json.loads(shown.stdout)
    assert (printed["data"], printed["recipe"]) == ("digits (embedded)", "digits")
    assert (printed["train"]["images"], printed["test"]["images"]) == (2874, 360)
    assert printed["train"]["width"] == {"min": 32, "p5": 32, "median": 32, "p95": 32, "max": 32}
    assert sum(printed["train"]["classes"]["images"]) == 2874
    assert printed["sheet"] == "contact-sheet.png"
    assert [path.name for path in elsewhere.iterdir()] == ["contact-sheet.png"]
    assert "contact sheet: contact-sheet.png" in shown.stderr


def test_photographs_and_the_broken_among_them(call_groco, imagenet_jpegs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    photos = tmp_path / "photos"
    for number, path in enumerate(sorted(imagenet_jpegs.iterdir())[:30]):
        (photos / ("even", "odd")[number % 2]).mkdir(parents=True, exist_ok=True)
        (photos / ("even", "odd")[number % 2] / path.name).write_bytes(path.read_bytes())
    cut = sorted((photos / "odd").iterdir())[4]
    cut.write_bytes(cut.read_bytes()[:3000])
    shown = call_groco("data", str(photos))
    assert shown.returncode == 0, shown.stderr
    for said in ("30 images; 2 classes; 30 JPEG; all decoded; 1 broken", f"broken: {cut}: ", "truncated"):
        assert said in shown.stdout
    assert "warning: 1 of 30 training images cannot be decoded" in shown.stderr
    assert "--on-bad-image skip" in shown.stderr
    printed = json.loads(call_groco("data", str(photos), "--json", "--workers", "1").stdout)
    assert [one["name"] for one in printed["train"]["broken"]] == [str(cut)]
    assert printed["train"]["classes"] == {"names": ["even", "odd"], "images": [15, 15]}
    assert printed["train"]["formats"] == {"JPEG": 30}


def test_only_so_many_are_decoded_and_that_is_said(call_groco, picture_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = picture_folder(*(f"{i:02}.png" for i in range(40)))
    path = folder / "39.png"
    path.write_bytes(path.read_bytes()[:-40])
    some = call_groco("data", str(folder), "--decode", "4", "--json")
    assert json.loads(some.stdout)["train"]["decoded"] == 4
    assert json.loads(some.stdout)["train"]["broken"] == []
    assert "4, evenly spread, decoded" in call_groco("data", str(folder), "--decode", "4").stdout
    assert len(json.loads(call_groco("data", str(folder), "--decode", "all", "--json").stdout)["train"]["broken"]) == 1


def test_many_broken_files_are_counted_and_json_lists_all(call_groco, picture_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = picture_folder(*(f"{i:02}.png" for i in range(60)))
    for number in range(20, 55):
        (folder / f"{number}.png").write_bytes(b"")
    shown = call_groco("data", str(folder))
    assert shown.stdout.count("broken: ") == 20
    assert "and 15 more" in shown.stdout
    assert "--on-bad-image" not in shown.stderr  # too many for that
    assert len(json.loads(call_groco("data", str(folder), "--json").stdout)["train"]["broken"]) == 35


def test_the_sheet_shows_the_views_that_the_options_make(call_groco, picture_folder, elsewhere):
    folder = picture_folder(*(f"{i}.png" for i in range(7)), size=(60, 50))
    options = ("--image-size", "48", "--local-views", "2", "--local-size", "24", "--blur", "0", "--crop-scale", "0.5")
    shown = call_groco("data", str(folder), *options, "1", "--rows", "2", "--show-epochs", "3", "--seed", "5")
    assert shown.returncode == 0, shown.stderr
    settings = ViewSettings(image_size=48, local_views=2, local_size=24, blur=(0.0,), crop_scale=(0.5, 1.0))
    expected = ContactSheet(
        source=open_dataset(str(folder), elsewhere).train,
        views=settings.draw(),
        global_views=2,
        rows=2,
        epochs=3,
        seed=5,
        title=f"{folder}, dino augmentations",
    ).draw()
    assert np.array_equal(np.asarray(Image.open("contact-sheet.png")), np.asarray(expected))


def test_the_environment_counts_as_for_a_run(call_groco, picture_folder, monkeypatch):
    folder = str(picture_folder(*(f"{i}.png" for i in range(3)), size=(60, 50)))
    typed = ("data", folder, "--image-size", "32", "--rows", "2", "--json")
    expected = call_groco(*typed, "--recipe", "cifar10-quick", "--views", "4", "--seed", "7", "--sheet", "typed.png")
    environment = {"RECIPE": "cifar10-quick", "VIEWS": "4", "SEED": "7", "IMAGE_SIZE": "48", "BATCH_SIZE": "0"}
    for name, value in environment.items():
        monkeypatch.setenv(f"GROCO_{name}", value)
    shown = call_groco(*typed)
    assert shown.returncode == 0, shown.stderr
    assert "settings   GROCO_RECIPE, GROCO_VIEWS, GROCO_SEED from the environment" in shown.stderr
    assert json.loads(shown.stdout) == json.loads(expected.stdout) | {"sheet": "contact-sheet.png"}
    assert np.array_equal(np.asarray(Image.open("contact-sheet.png")), np.asarray(Image.open("typed.png")))


@pytest.mark.parametrize(
    ("variable", "what"),
    [
        ("GROCO_VIEW=4", "GROCO_VIEW: no such setting; did you mean 'GROCO_VIEWS'"),
        ("GROCO_VIEWS=0", "--views 0 is out of range (GROCO_VIEWS in the environment)"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line(call_groco, monkeypatch, variable, what):
    monkeypatch.setenv(*variable.split("="))
    failed = call_groco("data", "digits")
    assert (failed.returncode, failed.stdout) == (2, "")
    (line,) = failed.stderr.strip().splitlines()
    assert what in line


def test_a_run_s_settings_say_what_is_looked_at(call_groco, elsewhere):
    Path("settings.toml").write_text(to_toml(RECIPES["digits"].settings))
    shown = call_groco("data", "--config", "settings.toml", "--sheet", "new/sheet.png", "--json")
    assert json.loads(shown.stdout)["data"] == "digits (embedded)"
    assert Path("new/sheet.png").exists()
    assert not Path("contact-sheet.png").exists()


def test_shards_come_back_with_both_parts(call_groco, picture_folder, tmp_path):
    folder = picture_folder(*(f"{part}/{c}/{i}.png" for part in ("train", "val") for c in "ab" for i in range(5)))
    made = call_groco("data", str(folder), "--to-shards", "out put", "--images-per-shard", "4", "--json")
    assert made.returncode == 0, made.stderr
    assert "now type: groco pretrain --data 'out put'" in made.stderr
    Path("out put").rename("out")
    shards = json.loads(made.stdout)["shards"]
    assert shards["train"] == [f"out put/train/{i:06}.tar" for i in range(3)]
    assert shards["test"] == [f"out put/val/{i:06}.tar" for i in range(3)]
    assert not Path("contact-sheet.png").exists()
    before, after = (open_dataset(place, tmp_path / "root") for place in (str(folder), "out"))
    for one, other in ((before.train, after.train), (before.test, after.test)):
        assert len(one) == len(other) == 10
        assert one.classes == other.classes == ("a", "b")
        assert torch.equal(one.labels, other.labels)
        assert all(torch.equal(one.load(i), other.load(i)) for i in range(10))
    shown = call_groco("data", "out", "--json")
    assert json.loads(shown.stdout)["test"]["classes"] == {"names": ["a", "b"], "images": [5, 5]}


def test_digits_become_shards_too(call_groco, tmp_path):
    assert call_groco("data", "digits", "--to-shards", "out").returncode == 0
    dataset = open_dataset("out", tmp_path / "root")
    assert (len(dataset.train), len(dataset.test)) == (2874, 360)
    with tarfile.open("out/val/000000.tar") as tar:
        assert len(tar.getnames()) == 720


def test_shards_may_leave_out_broken_files(call_groco, picture_folder, tmp_path):
    folder = picture_folder(*(f"{i}.png" for i in range(5)))
    (folder / "2.png").write_bytes(b"")
    failed = call_groco("data", str(folder), "--to-shards", "out")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert f"cannot decode {folder}/2.png" in failed.stderr
    assert "--on-bad-image skip" in failed.stderr
    assert list(Path("out").glob("*.tar")) == []
    assert call_groco("data", str(folder), "--to-shards", "out", "--on-bad-image", "skip").returncode == 0
    assert len(open_dataset("out", tmp_path / "root").train) == 4


def test_names_that_are_no_text_are_shown(run_groco, picture_folder):
    folder = picture_folder("0.png", "1.png")
    (folder / "2\udcff.png").write_bytes(b"")
    shown = run_groco("data", str(folder), PYTHONIOENCODING="utf-8")
    assert shown.returncode == 0, shown.stderr
    assert "2?.png: not an image" in shown.stdout.replace("\n", "")


@pytest.mark.parametrize("inside", [".", "cat"])
def test_in_the_folder_of_images_the_sheet_goes_elsewhere(call_groco, picture_folder, tmp_path, monkeypatch, inside):
    folder = picture_folder(*(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)))
    monkeypatch.chdir(folder / inside)
    for _ in range(2):
        printed = json.loads(call_groco("data", str(folder), "--json").stdout)
        assert printed["sheet"] == str(tmp_path / "root/contact-sheet.png")
        assert (printed["train"]["images"], printed["train"]["classes"]["names"]) == (6, ["cat", "dog"])
    assert Path(printed["sheet"]).exists()
    refused = call_groco("data", str(folder), "--sheet", str(folder / "new/x.png"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"--sheet {folder.parent}/x.png" in refused.stderr
    assert len(list(folder.rglob("*.png"))) == 6


def test_beside_train_and_val_the_sheet_is_no_image(call_groco, picture_folder, monkeypatch):
    folder = picture_folder("train/cat/0.png", "val/cat/1.png")
    monkeypatch.chdir(folder)
    for _ in range(2):
        printed = json.loads(call_groco("data", ".", "--json").stdout)
        assert (printed["sheet"], printed["train"]["images"], printed["test"]["images"]) == ("contact-sheet.png", 1, 1)


def test_names_of_several_lines_are_shown_in_one(call_groco, picture_folder, elsewhere):
    folder = picture_folder("a/one\ntwo.png", "b/0.png")
    (folder / "b/bro\nken.png").write_bytes(b"")
    shown = call_groco("data", str(folder))
    assert shown.returncode == 0, shown.stderr
    assert "broken: " + str(folder / "b/bro?ken.png") in shown.stdout
    assert Image.open("contact-sheet.png").size[0] > 0


MISTAKES = [
    # what is typed, exit code, what the line says
    ("data absent", 2, "error: absent: no such folder", "give a folder"),
    ("data cifar1", 2, "cifar1", "did you mean 'cifar10'"),
    ("data --decode few", 2, "--decode few", "--decode all"),
    ("data --sheet sheet.jpg", 2, "--sheet sheet.jpg", "sheet.png"),
    ("data --rows 0", 2, "--rows", "--help"),
    ("data --augmentation dyno", 2, "--augmentation dyno", "did you mean 'dino'"),
    ("data --crop-scale 0.5 2", 2, "--crop-scale", "--crop-scale 0.14 1.0"),
    ("data --recipe groco-2views-100ep", 2, "names no images", "groco data FOLDER"),
    ("data --to-shards out --sheet x.png", 2, "--to-shards", "leave out --sheet"),
    ("data --to-shards out --on-bad-image ignore", 2, "--on-bad-image ignore", "skip"),
    ("data --sheet {file}/sheet.png", 1, "cannot write", "another place"),
    ("data --to-shards {file}/out", 1, "cannot write", "another place"),
    ("data --to-shards {shards}", 2, "holds shards already", "another folder"),
]


@pytest.mark.parametrize(("typed", "code", "what", "remedy"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_a_mistake_is_one_line_with_its_remedy_and_leaves_nothing(
    call_groco, elsewhere, tmp_path, typed, code, what, remedy
):
    (tmp_path / "file").touch()
    (tmp_path / "shards/train").mkdir(parents=True)
    (tmp_path / "shards/train/0.tar").touch()
    failed = call_groco(*typed.format(file=tmp_path / "file", shards=tmp_path / "shards").split())
    assert (failed.returncode, failed.stdout) == (code, "")
    (line,) = failed.stderr.strip().splitlines()
    assert what in line
    assert remedy in line
    assert list(elsewhere.iterdir()) == []


def test_a_held_out_part_of_broken_files_alone_is_told(call_groco, picture_folder):
    folder = picture_folder("train/a/0.png", "val/a/0.png")
    shards = Path("shards")
    assert call_groco("data", str(folder), "--to-shards", str(shards)).returncode == 0
    tar = shards / "val/000000.tar"
    picture = (folder / "val/a/0.png").read_bytes()
    tar.write_bytes(tar.read_bytes().replace(picture[-30:], bytes(30)))
    refused = call_groco("data", str(shards), "--to-shards", "again", "--on-bad-image", "skip")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "no decodable image" in refused.stderr

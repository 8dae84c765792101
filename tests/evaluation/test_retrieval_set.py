"""Which files make up a retrieval set."""

import json
import shutil
from pathlib import Path

import pytest

from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.retrieval_set import list_pictures, open_images, open_published, with_distractors


@pytest.fixture
def write_truth(tmp_path: Path):
    def write(imlist: list[str], qimlist: list[str]) -> Path:
        path = tmp_path / "truth.json"
        path.write_text(json.dumps({"imlist": imlist, "qimlist": qimlist, "gnd": [{"easy": [0]}] * len(qimlist)}))
        return path

    return write


def test_names_are_files_as_they_end_or_else_jpegs(picture_folder, write_truth):
    folder = picture_folder("a.jpg", "b.png", "v1.2.jpg", "deep/c.jpg", "q.JPG")
    data = open_images(folder, write_truth(["a", "b.png", "v1.2", "deep/c"], ["q.JPG"]))
    assert data.images == tuple(folder / name for name in ("a.jpg", "b.png", "v1.2.jpg", "deep/c.jpg"))
    assert data.queries == (folder / "q.JPG",)
    assert data.database == data.images
    assert data.name == str(folder)


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_published_sets_lie_as_they_are_downloaded(real_data, tmp_path: Path, name: str):
    folder = tmp_path / name
    (folder / "jpg").mkdir(parents=True)
    shutil.copy(real_data(f"retrieval/gnd_{name}.pkl"), folder)
    with pytest.raises(GrocoError) as failed:
        open_published(name, tmp_path)
    total = {"roxford5k": "5,063", "rparis6k": "6,392"}[name]
    assert failed.value.message.startswith(f"{total} of the {total} pictures that ")
    stored = open_missing(failed.value)
    for missing in stored:
        (folder / "jpg" / missing).touch()
    data = open_published(name, tmp_path)
    assert (len(data.images), len(data.queries), data.name) == (len(stored) - 70, 70, name)
    assert all(path.is_file() for path in (*data.images, *data.queries))


def open_missing(error: GrocoError) -> list[str]:
    """The names behind an error: what -v prints."""
    return str(error.__cause__).splitlines()


def test_all_missing_pictures_are_listed(picture_folder, write_truth):
    folder = picture_folder("here.jpg")
    few = [f"gone{i}" for i in range(7)]
    with pytest.raises(GrocoError) as failed:
        open_images(folder, write_truth(["here", *few], ["here", "lost"]))
    assert failed.value.message.startswith("8 of the 9 pictures that ")
    assert failed.value.message.endswith(": " + ", ".join([*(f"{name}.jpg" for name in few), "lost.jpg"]))


def test_of_many_missing_pictures_the_first_are_named_and_verbose_lists_all(picture_folder, write_truth):
    folder = picture_folder("here.jpg")
    many = [f"gone{i}" for i in range(1234)]
    with pytest.raises(GrocoError) as failed:
        open_images(folder, write_truth(many, ["here"]))
    assert failed.value.message.endswith("gone18.jpg, gone19.jpg and 1,214 more")
    assert "groco -v retrieve" in failed.value.hint
    assert open_missing(failed.value) == [f"{name}.jpg" for name in many]


def test_an_absent_set_says_where_its_files_go(tmp_path: Path):
    with pytest.raises(UsageError) as failed:
        open_published("roxford5k", tmp_path)
    for place in (tmp_path / "roxford5k/jpg", tmp_path / "roxford5k/gnd_roxford5k.pkl"):
        assert str(place) in failed.value.hint
    assert "--data-root" in failed.value.hint
    (tmp_path / "roxford5k/jpg").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"there is no .*gnd_roxford5k\.pkl"):
        open_published("roxford5k", tmp_path)


def test_an_unknown_set_and_an_absent_folder_are_told(tmp_path: Path, write_truth):
    with pytest.raises(UsageError, match="--dataset roxford") as failed:
        open_published("roxford", tmp_path)
    assert "'roxford5k'" in failed.value.hint
    with pytest.raises(UsageError, match="no such folder"):
        open_images(tmp_path / "none", write_truth(["a"], ["q"]))


def test_distractors_may_not_be_the_sets_own_pictures_by_whatever_path(picture_folder, write_truth, tmp_path: Path):
    folder = picture_folder("a.jpg", "b.jpg", "q.jpg")
    data = open_images(folder, write_truth(["a", "b"], ["q"]))
    others = tmp_path / "others"
    shutil.copytree(folder, others)  # equal pictures are other files
    assert with_distractors(data, others).distractors == tuple(others / f"{name}.jpg" for name in "abq")
    with pytest.raises(UsageError, match=r"3 of its pictures are in .*pictures already: a\.jpg, b\.jpg, q\.jpg$"):
        with_distractors(data, folder / "../pictures")
    (others / "linked.jpg").symlink_to(folder / "b.jpg")
    (others / "broken.jpg").symlink_to("nowhere")
    with pytest.raises(
        UsageError, match=r"--distractors .*others: 1 of its pictures .* already: linked\.jpg$"
    ) as failed:
        with_distractors(data, others)
    assert failed.value.hint == "give a folder of other pictures"


def test_pictures_below_a_folder_are_listed_in_order(picture_folder, tmp_path: Path):
    folder = picture_folder("b.jpg", "a/z.png", "a/.hidden.jpg", "c.JPEG")
    (folder / "notes.txt").touch()
    assert list_pictures(folder, "--distractors") == (folder / "a/z.png", folder / "b.jpg", folder / "c.JPEG")
    for empty in (tmp_path / "none", folder / "notes.txt"):
        with pytest.raises(UsageError, match=r"--distractors .*no such folder"):
            list_pictures(empty, "--distractors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"--whiten .*no picture in it"):
        list_pictures(tmp_path / "empty", "--whiten")


def test_names_too_long_for_any_file_are_missing_like_others(picture_folder, write_truth):
    folder, name = picture_folder("here.jpg"), "x" * 5000
    with pytest.raises(GrocoError, match="1 of the 2 pictures"):
        open_images(folder, write_truth([name], ["here"]))
    with pytest.raises(UsageError, match="no such folder"):
        open_images(Path(name), write_truth(["here"], ["here"]))

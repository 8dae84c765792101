"""`groco retrieve` as it is typed: real photographs end to end, every setting said, and what a mistake looks like."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from groco_cli.models import EncoderMetadata, create_encoder
from groco_cli.models.conversion import save_checkpoint


def checkpoint_at(path: Path, arch: str, **metadata) -> Path:
    """An untrained encoder in a checkpoint."""
    torch.manual_seed(0)
    save_checkpoint(path, create_encoder(EncoderMetadata(arch=arch, **metadata)), {})
    return path


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    return checkpoint_at(tmp_path_factory.mktemp("resnet") / "resnet18.safetensors", "resnet18")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return checkpoint_at(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", "test_resnet", image_size=32, resize=32)


@pytest.fixture
def small_set(picture_folder, tmp_path: Path) -> tuple[str, ...]:
    """The options for twelve pictures of noise and two queries, one of them a copy of picture 3."""
    folder = picture_folder(*(f"{i}.png" for i in range(12)), "q.png", size=(40, 30))
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())
    gnd = [{"bbx": [0, 0, 20, 20], "easy": [1], "hard": [2], "junk": [0]}, {"bbx": [0, 0, 40, 30], "easy": [3]}]
    names = [f"{i}.png" for i in range(12)]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"imlist": names, "qimlist": ["q.png", "copy.png"], "gnd": gnd}))
    return "--images", str(folder), "--ground-truth", str(truth), "--device", "cpu"


def test_crops_of_real_photographs_are_found_far_above_chance(call_groco, untrained, photo_search, tmp_path):
    folder, truth = photo_search
    page = tmp_path / "new/page.html"
    options = ("--images", str(folder), "--ground-truth", str(truth), "--device", "cpu", "--html", str(page))
    shown = call_groco("retrieve", str(untrained), *options, "--json")
    assert shown.returncode == 0, shown.stderr
    printed = json.loads(shown.stdout)
    assert (printed["images"], printed["queries"], printed["distractors"]) == (160, 20, 0)
    assert printed["protocol"] == {
        "name": "dino",
        "crop_query": False,
        "image_size": 224,
        "scales": [1.0],
        "whiten": None,
        "altered": False,
    }
    (encoder,) = printed["encoders"]
    scores = encoder["scores"]
    assert (encoder["checkpoint"], encoder["arch"]) == (str(untrained), "resnet18")
    assert [score["num_queries"] for score in scores.values()] == [20, 20, 20]
    # Chance: two of 157 images are right, in the easy setup; mAP by chance is near 0.03.
    assert scores["easy"]["mean_ap"] > 0.6
    assert scores["easy"]["mean_precision"]["1"] > 0.7
    assert scores["easy"]["mean_ap"] > scores["medium"]["mean_ap"] > scores["hard"]["mean_ap"] > 0.1
    assert page.read_text(encoding="utf-8").count("<section") == 20
    assert f"page: {page}" in shown.stderr


def test_everything_is_said(call_groco, tiny, small_set, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    shown = call_groco("retrieve", str(tiny), *small_set)
    assert shown.returncode == 0, shown.stderr
    for said in (
        "dino, 224 pixels, scales 1, queries whole, whitening off",
        "12 images and 0 distractors",
        "on cpu (",
        "FAISS knn, exact, CPU",
        "test_resnet, untrained, 0 epochs",
        "mP@10 %",
        "2 queries",
    ):
        assert said in shown.stdout
    assert "altered" not in shown.stdout
    beside = call_groco("retrieve", str(tiny), *small_set, "--paper")
    assert "--paper: the paper's retrieval is on roxford5k and rparis6k, it has no row for" in beside.stderr


def test_every_setting_can_be_changed_and_is_said_to_be(call_groco, tiny, small_set, picture_folder):
    other = picture_folder(*(f"far/{i}.png" for i in range(4)), size=(20, 20)) / "far"
    options = ("--protocol", "revisitop", "--image-size", "24", "--scales", "1,0.5", "--whole", "--whiten", str(other))
    shown = call_groco("retrieve", str(tiny), *small_set, *options, "--distractors", str(other))
    assert shown.returncode == 0, shown.stderr
    assert "revisitop, 24 pixels, scales 1, 0.5, queries whole" in shown.stdout
    assert "(altered)" in shown.stdout
    assert "12 images and 4 distractors" in shown.stdout
    printed = json.loads(call_groco("retrieve", str(tiny), *small_set, *options, "--json").stdout)
    assert printed["protocol"] == {
        "name": "revisitop",
        "crop_query": False,
        "image_size": 24,
        "scales": [1.0, 0.5],
        "whiten": str(other),
        "altered": True,
    }


def test_a_copy_is_found_first_and_setups_without_queries_are_null(call_groco, tiny, small_set):
    printed = json.loads(call_groco("retrieve", str(tiny), *small_set, "--json").stdout)
    (encoder,) = printed["encoders"]
    assert encoder["scores"]["easy"]["num_queries"] == 2
    assert encoder["scores"]["easy"]["mean_precision"]["1"] >= 0.5
    truth = Path(small_set[3])
    stored = json.loads(truth.read_text())
    stored["gnd"] = [{"easy": [3]}, {"easy": [3]}]
    truth.write_text(json.dumps(stored))
    shown = call_groco("retrieve", str(tiny), *small_set, "--json")
    hard = json.loads(shown.stdout)["encoders"][0]["scores"]["hard"]
    assert hard == {"mean_ap": None, "mean_precision": {"1": None, "5": None, "10": None}, "num_queries": 0}
    assert "–" in call_groco("retrieve", str(tiny), *small_set).stdout


def test_several_checkpoints_stand_side_by_side(call_groco, tiny, small_set, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    names = [tmp_path / f"runs/{run}/checkpoints/latest.safetensors" for run in ("long", "short")]
    for name in names:
        name.parent.mkdir(parents=True)
        name.write_bytes(tiny.read_bytes())
    shown = call_groco("retrieve", *map(str, names), *small_set, "--json")
    assert [encoder["checkpoint"] for encoder in json.loads(shown.stdout)["encoders"]] == [str(name) for name in names]
    table = call_groco("retrieve", *map(str, names), *small_set, "--html", str(tmp_path / "page.html")).stdout
    assert f"long: {names[0]}, test_resnet" in table
    assert f"short: {names[1]}, test_resnet" in table
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<ol>") == 2 * 2


def test_without_a_checkpoint_the_newest_run_is_taken(call_groco, tiny, small_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    newest = Path("runs/digits/checkpoints/latest.safetensors")
    newest.parent.mkdir(parents=True)
    newest.write_bytes(tiny.read_bytes())
    printed = json.loads(call_groco("retrieve", *small_set, "--json").stdout)
    assert printed["encoders"][0]["checkpoint"] == str(newest)


def test_the_published_set_is_found_below_its_root(call_groco, tiny, picture_folder, tmp_path):
    folder = tmp_path / "root/rparis6k"
    picture_folder("a.jpg", "b.jpg", "q.jpg", size=(60, 40)).rename(tmp_path / "jpg")
    folder.mkdir(parents=True)
    (tmp_path / "jpg").rename(folder / "jpg")
    truth = {
        "imlist": ["a", "b"],
        "qimlist": ["q"],
        "gnd": [{"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": []}],
    }
    (folder / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(truth))
    options = ("--dataset", "rparis6k", "--data-root", str(tmp_path / "root"), "--device", "cpu")
    shown = call_groco("retrieve", str(tiny), *options)
    assert shown.returncode == 0, shown.stderr
    assert "Retrieval on rparis6k: 1 query\n" in shown.stdout
    assert "paper" not in shown.stdout
    files = ("--paper", "--latex", str(tmp_path / "paris.tex"))
    beside = call_groco("retrieve", str(tiny), *options, *files)
    assert "paper: Table 2" in beside.stdout
    assert r"paper: GroCo, 400 epochs & medium & 54.95 &" in (tmp_path / "paris.tex").read_text(encoding="utf-8")
    printed = json.loads(call_groco("retrieve", str(tiny), *options, "--paper", "--json").stdout)
    assert printed["paper"]["GroCo, 400 epochs"] == {"medium": 54.95, "hard": 26.26}
    assert "dino, 512 pixels, scales 1, 0.7071, 0.5, queries whole" in shown.stdout


def complaint(failed, code: int) -> str:
    """The one line that a failed command says, behind its notes."""
    assert (failed.returncode, failed.stdout) == (code, "")
    assert "Traceback" not in failed.stderr
    (line,) = [line for line in failed.stderr.strip().splitlines() if not line.startswith("checkpoint ")]
    return line


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        ([], "nothing to search in", "--dataset roxford5k"),
        (["--images", "."], "belong together", "give both"),
        (["--dataset", "roxford5k", "--images", "."], "--dataset roxford5k has its own", "leave out --images"),
        (["--dataset", "oxford5k"], "--dataset oxford5k", "did you mean 'roxford5k'"),
        (["--dataset", "rparis6k", "--data-root", "nowhere"], "nowhere/rparis6k/jpg", "docs/retrieve.md"),
        (["--protocol", "dyno"], "--protocol dyno", "did you mean 'dino'"),
        (["--cache-dtype", "bf16"], "--cache-dtype bf16: no such type", "fp32 or fp16"),
        (["--scales", "1,x"], "--scales '1,x'", "e.g. --scales"),
        (["--images", "nowhere", "--ground-truth", "x.pkl"], "--images nowhere", "folder"),
        (["--images", ".", "--ground-truth", "x.pkl"], "no ground truth x.pkl", ".pkl or .json"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(call_groco, tiny, tmp_path, monkeypatch, options, what, remedy):
    monkeypatch.chdir(tmp_path)
    line = complaint(call_groco("retrieve", str(tiny), *options), 2)
    assert what in line
    assert remedy in line
    assert list(tmp_path.iterdir()) == []


def test_features_are_kept_and_it_is_said_when_they_are_found(call_groco, tiny, small_set, tmp_path):
    def retrieve(*more: str):
        done = call_groco("retrieve", str(tiny), *small_set, "--json", *more)
        assert done.returncode == 0, done.stderr
        return done

    kept = tmp_path / "data-root/features"
    without = retrieve("--no-cache")
    assert not kept.exists()
    first, second = retrieve(), retrieve()
    assert first.stdout == second.stdout == without.stdout
    assert "from the cache" not in first.stderr + without.stderr
    lines = [line for line in second.stderr.splitlines() if "from the cache" in line]
    assert lines[0].startswith(f"features   tiny, {small_set[1]} queries: from the cache ")
    assert {Path(line.split("from the cache ")[1]) for line in lines} == set(kept.iterdir())
    assert len(lines) == 2
    half = json.loads(retrieve("--cache", str(tmp_path / "mine"), "--cache-dtype", "fp16").stdout)
    assert (half["cache_dtype"], json.loads(first.stdout)["cache_dtype"]) == ("fp16", "fp32")
    assert len(list((tmp_path / "mine").iterdir())) == 2
    assert "kept in fp16" in call_groco("retrieve", str(tiny), *small_set, "--cache-dtype", "fp16").stdout


@pytest.mark.parametrize("option", ["--distractors", "--whiten"])
def test_a_folder_that_is_not_there_is_told_before_any_work(call_groco, tiny, small_set, option):
    assert f"{option} nowhere" in complaint(call_groco("retrieve", str(tiny), *small_set, option, "nowhere"), 2)


def test_a_page_that_cannot_be_written_is_told_before_any_work(call_groco, tiny, small_set, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file/page.html"):
        failed = call_groco("retrieve", str(tiny), *small_set, "--html", str(place))
        assert f"cannot write {place}" in complaint(failed, 1)
        assert "checkpoint" not in failed.stderr


def test_missing_pictures_are_listed_in_one_line(call_groco, tiny, small_set):
    folder = Path(small_set[1])
    for name in ("4.png", "7.png", "copy.png"):
        (folder / name).unlink()
    line = complaint(call_groco("retrieve", str(tiny), *small_set), 1)
    assert "3 of the 14 pictures" in line
    assert "4.png, 7.png, copy.png" in line


def test_verbose_lists_every_missing_picture(call_groco, tiny, small_set):
    folder, truth = Path(small_set[1]), Path(small_set[3])
    names = [f"gone{i}.jpg" for i in range(500)]
    truth.write_text(json.dumps({"imlist": names, "qimlist": ["q.png"], "gnd": [{"easy": [0]}]}))
    assert "and 480 more" in complaint(call_groco("retrieve", str(tiny), *small_set), 1)
    said = call_groco("-v", "retrieve", str(tiny), *small_set).stderr
    assert all(name in said for name in names)
    assert folder.is_dir()


def test_a_malicious_ground_truth_runs_nothing(call_groco, tiny, small_set, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path}/victim'",)

    truth = tmp_path / "gnd_evil.pkl"
    truth.write_bytes(pickle.dumps({"imlist": ["0.png"], "qimlist": ["q.png"], "gnd": [Payload()]}))
    line = complaint(call_groco("retrieve", str(tiny), "--images", small_set[1], "--ground-truth", str(truth)), 1)
    assert f"{truth} is refused" in line
    assert not (tmp_path / "victim").exists()


def test_features_that_are_not_finite_are_told(call_groco, small_set, tmp_path):
    encoder = create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=32))
    next(iter(encoder.parameters())).data.fill_(torch.nan)
    save_checkpoint(tmp_path / "nan.safetensors", encoder, {})
    line = complaint(call_groco("retrieve", str(tmp_path / "nan.safetensors"), *small_set), 1)
    assert "feature of" in line
    assert "is not finite" in line


def test_a_picture_that_cannot_be_decoded_is_told(call_groco, tiny, small_set):
    (Path(small_set[1]) / "5.png").write_bytes(b"no picture")
    assert "5.png" in complaint(call_groco("retrieve", str(tiny), *small_set), 1)

"""The ground truth: the published files, JSON, and everything that is refused, nothing of which is executed."""

import json
import os
import pickle
from pathlib import Path

import pytest

from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.ground_truth import load_ground_truth

GOOD = {
    "imlist": ["a", "b", "c", "d"],
    "qimlist": ["q", "r"],
    "gnd": [
        {"bbx": [1, 2.5, 30, 40], "easy": [0], "hard": [2], "junk": [1]},
        {"bbx": [0, 0, 9, 9], "easy": [], "hard": [3], "junk": []},
    ],
}


def changed(**entries) -> dict:
    """The good one, its first query's entries replaced."""
    first, second = GOOD["gnd"]
    return GOOD | {"gnd": [first | entries, second]}


@pytest.fixture(params=["pkl", "json"])
def write(request, tmp_path: Path):
    def write(stored) -> Path:
        path = tmp_path / f"truth.{request.param}"
        path.write_bytes(pickle.dumps(stored) if request.param == "pkl" else json.dumps(stored).encode())
        return path

    return write


@pytest.mark.parametrize(("name", "images"), [("roxford5k", 4993), ("rparis6k", 6322)])
def test_the_published_files_are_read_whole(real_data, name: str, images: int):
    path = real_data(f"retrieval/gnd_{name}.pkl")
    truth = load_ground_truth(path)
    stored = pickle.loads(path.read_bytes())  # noqa: S301 - the published file
    assert (len(truth.imlist), len(truth.qimlist), len(truth.gnd)) == (images, 70, 70)
    assert list(truth.imlist) == stored["imlist"]
    assert list(truth.qimlist) == stored["qimlist"]
    for query, entry in zip(truth.gnd, stored["gnd"], strict=True):
        assert {kind: list(getattr(query, kind)) for kind in entry} == entry


def test_both_forms_say_the_same(write):
    truth = load_ground_truth(write(GOOD))
    assert (truth.imlist, truth.qimlist) == (("a", "b", "c", "d"), ("q", "r"))
    first, second = truth.gnd
    assert (first.bbx, first.easy, first.hard, first.junk) == ((1.0, 2.5, 30.0, 40.0), (0,), (2,), (1,))
    assert (second.bbx, second.easy, second.hard, second.junk) == ((0.0, 0.0, 9.0, 9.0), (), (3,), ())


def test_images_may_be_named_and_what_is_empty_left_out(write):
    truth = load_ground_truth(write(GOOD | {"gnd": [{"easy": ["c", 0]}, {}]}))
    first, second = truth.gnd
    assert (first.bbx, first.easy, first.hard, first.junk) == (None, (2, 0), (), ())
    assert second.easy == second.hard == second.junk == ()


def test_a_name_may_lack_its_jpg_in_either_list(write):
    named = {"imlist": ["x/0.jpg", "x/1", "y/0.png", "y/1.jpg"], "gnd": [{"easy": ["x/0"], "hard": ["x/1.jpg"]}, {}]}
    truth = load_ground_truth(write(GOOD | named))
    assert (truth.gnd[0].easy, truth.gnd[0].hard) == ((0,), (1,))
    assert truth.imlist == tuple(named["imlist"])
    with pytest.raises(GrocoError, match=r"hard holds 'y/0'; no such name in imlist"):
        load_ground_truth(write(GOOD | named | {"gnd": [{"hard": ["y/0"]}, {}]}))


def test_one_picture_may_be_asked_about_twice_with_different_boxes(write):
    two = {"qimlist": ["q", "q"]}
    assert load_ground_truth(write(GOOD | two)).qimlist == ("q", "q")
    with pytest.raises(GrocoError, match="'q' twice"):
        load_ground_truth(write(GOOD | two | {"gnd": [GOOD["gnd"][0]] * 2}))


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([1, 2], "imlist, qimlist and gnd are wanted"),
        ({"imlist": ["a"], "qimlist": ["q"]}, "imlist, qimlist and gnd are wanted"),
        (GOOD | {"imlist": ["a", "b", "a", "d"]}, "imlist names 'a' twice"),
        (GOOD | {"imlist": ["a", "b", "a.jpg", "d"]}, "imlist names 'a' twice"),
        (GOOD | {"imlist": []}, "imlist must be a list of names"),
        (GOOD | {"imlist": "abcd"}, "imlist must be a list of names"),
        (GOOD | {"imlist": ["a", "b", "c", 7]}, "imlist holds 7"),
        (GOOD | {"imlist": ["a", "b", "c", ""]}, "imlist holds ''"),
        (GOOD | {"imlist": ["a", "b", "c", "../secret"]}, "outside the folder"),
        (GOOD | {"qimlist": ["q", "/etc/passwd"]}, "outside the folder"),
        (GOOD | {"qimlist": ["q", "r", "s"]}, "gnd must be a list of 3"),
        (GOOD | {"gnd": 3}, "gnd must be a list of 2"),
        (GOOD | {"gnd": [GOOD["gnd"][0], 5]}, "query 'r': its entry"),
        (changed(easy=[4]), "query 'q': easy holds 4; imlist has images 0 to 3"),
        (changed(easy=[-1]), "easy holds -1"),
        (changed(easy=[True]), "easy holds True"),
        (changed(easy=[0.0]), "easy holds 0.0"),
        (changed(easy=["nobody"]), "easy holds 'nobody'; no such name in imlist"),
        (changed(easy=[[0]]), "easy holds a list"),
        (changed(easy={"0": 1}), "easy must be a list"),
        (changed(easy=[0, 0]), "image 0 stands twice"),
        (changed(junk=[2]), "image 2 stands twice"),
        (changed(esay=[3]), "'esay' is none of bbx, easy, hard, junk"),
        (changed(bbx=[1, 2, 3]), "bbx must be four numbers"),
        (changed(bbx=[1, 2, 3, float("nan")]), "bbx must be four numbers"),
        (changed(bbx=[1, 2, 3, 10**400]), "too large"),
        (changed(bbx=[5, 2, 3, 9]), r"bbx \[5, 2, 3, 9\] is empty"),
    ],
)
def test_what_contradicts_itself_is_told_in_a_line(write, stored, said: str):
    path = write(stored)
    with pytest.raises(GrocoError, match=said) as failed:
        load_ground_truth(path)
    assert str(path) in failed.value.message
    assert "\n" not in failed.value.message
    assert len(failed.value.message) < len(str(path)) + 200


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch '{self.victim}'",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["alone", "in gnd", "behind"])
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path: Path, protocol: int, place: str):
    victim, path = tmp_path / "victim", tmp_path / "gnd_roxford5k.pkl"
    payload = Payload(victim)
    stored = {"alone": payload, "in gnd": changed(easy=[payload]), "behind": GOOD | {"extra": payload}}[place]
    path.write_bytes(pickle.dumps(stored, protocol))
    with pytest.raises(GrocoError, match=r"is refused.*system") as failed:
        load_ground_truth(path)
    assert "nothing of it was executed" in failed.value.hint
    assert not victim.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - it would have
    assert victim.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(S'touch VICTIM'\ntR.",
        b"(S'touch VICTIM'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch VICTIM'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch VICTIM\x85R.",
    ],
)
def test_no_opcode_leads_to_code(tmp_path: Path, monkeypatch, opcodes: bytes):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "truth.pkl"
    path.write_bytes(opcodes)
    with pytest.raises(GrocoError, match="is refused"):
        load_ground_truth(path)
    assert not Path("VICTIM").exists()
    pickle.loads(opcodes)  # noqa: S301 - it would have
    assert Path("VICTIM").exists()


def test_a_persistent_object_is_refused(tmp_path: Path):
    path = tmp_path / "truth.pkl"
    path.write_bytes(b"Pwhatever\n.")
    with pytest.raises(GrocoError, match=r"is refused.*persistent"):
        load_ground_truth(path)


@pytest.mark.parametrize("ending", ["pkl", "json"])
def test_damaged_files_are_told_in_a_line(tmp_path: Path, ending: str):
    whole = pickle.dumps(GOOD) if ending == "pkl" else json.dumps(GOOD).encode()
    path = tmp_path / f"truth.{ending}"
    for content in (b"", b"\xff\x00 no such thing", whole[:-3], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(GrocoError, match=r"is no (pickle|JSON)") as failed:
            load_ground_truth(path)
        assert "\n" not in failed.value.message


def test_deep_nesting_is_told_in_a_line(tmp_path: Path):
    path = tmp_path / "truth.json"
    path.write_text("[" * 100_000)
    with pytest.raises(GrocoError):
        load_ground_truth(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path):
    with pytest.raises(UsageError, match="no ground truth"):
        load_ground_truth(tmp_path / "none.pkl")
    with pytest.raises(GrocoError, match="cannot read") as folder:
        load_ground_truth(tmp_path)
    assert folder.value.hint

"""`groco bench`: every row that was asked for, and what a mistake looks like."""

import json
import shutil
from functools import partial
from importlib.util import find_spec

import pytest
import torch

from groco_cli.engine import bench_loss

SMALL = ("--anchors", "64", "--batch-size", "16", "--dim", "8", "--repeats", "1", "--device", "cpu")


def test_every_part_is_measured(call_groco):
    shown = call_groco("bench", "loss", "--n", "4", "--n", "16", *SMALL, "--json")
    assert shown.returncode == 0, shown.stderr
    rows = json.loads(shown.stdout)["measurements"]
    assert [(row["part"], row["size"], row["name"]) for row in rows] == [
        ("sorting", 4, "groco"),
        ("sorting", 4, "diffsort"),
        ("sorting", 16, "groco"),
        ("sorting", 16, "diffsort"),
        ("loss", 16, "GroCo"),
        ("loss", 16, "GroCo official"),
        ("loss", 16, "InfoNCE"),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    peaks = {(row["size"], row["name"]): row["peak_bytes"] for row in rows if row["part"] == "sorting"}
    assert peaks[16, "groco"] >= 3 * 64 * 16 * 4  # a copy of the values, the masses, what is kept
    assert peaks[16, "diffsort"] > 5 * peaks[16, "groco"]


def test_without_diffsort_groco_is_measured_alone(call_groco, monkeypatch):
    monkeypatch.setattr(bench_loss, "find_spec", lambda name: None if name == "diffsort" else find_spec(name))
    rows = json.loads(call_groco("bench", "loss", "--n", "4", *SMALL, "--json").stdout)["measurements"]
    assert [row["name"] for row in rows if row["part"] == "sorting"] == ["groco"]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiled_form_is_measured_if_asked_for(call_groco):
    shown = call_groco("bench", "loss", "--n", "4", *SMALL, "--compile", "--json")
    assert shown.returncode == 0, shown.stderr
    rows = [row for row in json.loads(shown.stdout)["measurements"] if row["part"] == "sorting"]
    assert [row["name"] for row in rows] == ["groco", "diffsort", "compiled"]
    assert [row["compile_seconds"] is not None for row in rows] == [False, False, True]
    assert rows[2]["compile_seconds"] > rows[2]["seconds"] > 0


def test_what_cannot_be_compiled_is_one_line(call_groco, monkeypatch):
    def broken(*_):
        raise RuntimeError("no working compiler\na long story")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    failed = call_groco("bench", "loss", "--n", "4", *SMALL, "--compile")
    assert (failed.returncode, failed.stdout) == (1, "")
    line = failed.stderr.strip().splitlines()[-1]
    assert line.startswith("error: torch.compile failed: no working compiler; install a C++ compiler")
    assert "story" not in failed.stderr


def test_the_table_names_device_and_settings(call_groco):
    shown = call_groco("bench", "loss", *SMALL, "--n", "4")
    for word in ("64 lists", "cpu", "n = 4", "B = 16", "InfoNCE", "peak MB"):
        assert word in shown.stdout


def test_every_stage_from_a_file_to_its_views_is_measured_against_the_usual_pipeline(call_groco, imagenet_jpegs):
    small = ("--image-size", "32", "--local-views", "1", "--local-size", "16", "--repeats", "1", "--device", "cpu")
    shown = call_groco("bench", "data", str(imagenet_jpegs), *small, "--json")
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert (result["images"], result["views"]) == (250, "2×32 + 1×16")
    taken = {stage["name"]: stage["milliseconds"] for stage in result["stages"]}
    assert list(taken) == ["read", "decode", "crop", "worker", "photometric", "all", "official"]
    assert all(time > 0 for time in taken.values())
    assert result["times_official"]["worker"] == pytest.approx(taken["official"] / taken["worker"])


def test_without_images_jpegs_are_made_to_be_measured(call_groco):
    shown = call_groco("bench", "data", "--image-size", "32", "--repeats", "1", "--device", "cpu")
    assert "generated JPEGs: 128 images to 2×32 dino views" in shown.stdout
    assert "official pipeline" in shown.stdout


def test_images_in_memory_have_nothing_to_decode(call_groco):
    failed = call_groco("bench", "data", "digits", "--device", "cpu")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "nothing to read or decode; name a folder" in failed.stderr


TINY_STEP = ("--recipe", "digits", "--arch", "test_resnet", "--batch-size", "16", "--repeats", "1", "--device", "cpu")


def test_a_training_step_is_measured_by_part_and_against_a_bare_loop(call_groco):
    shown = call_groco("bench", "train", *TINY_STEP, "--precision", "fp32", "--json")
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert list(result["parts"]) == ["data", "forward", "loss", "backward", "optimiser"]
    assert sum(part["share"] for part in result["parts"].values()) == pytest.approx(1)
    assert (result["recipe"], result["arch"], result["batch_size"], result["precision"]) == (
        "digits",
        "test_resnet",
        16,
        "fp32",
    )
    step = result["step"]
    assert step["ratio"] == pytest.approx(step["groco_seconds"] / step["bare_seconds"])  # of a single pair
    assert (result["peak_bytes"], result["images_per_second"] > 0) == (None, True)


def test_a_training_step_can_be_fed_with_images(call_groco):
    shown = call_groco("bench", "train", *TINY_STEP, "--data", "digits")
    assert shown.returncode == 0, shown.stderr
    for word in ("digits: test_resnet, 2×32, batch 16", "digits (embedded)", "forward", "the bare loop's", "waits"):
        assert word in shown.stdout


def test_a_training_step_is_measured_as_a_run_would_take_it(call_groco):
    typed = ("--views", "3", "--forward", "per-view", "--micro-batch", "8", "--no-compile")
    shown = call_groco("bench", "train", *TINY_STEP, *typed, "--json")
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert [result[name] for name in ("views", "forward", "micro_batch", "compile")] == ["3×32", "per-view", 8, False]
    assert result["step"]["groco_seconds"] > 0
    assert result["step"]["ratio"] is None
    table = call_groco("bench", "train", *TINY_STEP, *typed).stdout
    assert "groco's step" in table
    assert "bare" not in table


@pytest.mark.parametrize(
    ("typed", "what", "remedy"),
    [
        (["lss"], "'lss'", "did you mean 'loss'"),
        (["data", "--augmentation", "digits"], "--augmentation digits", "dino"),
        (["train", "--recipe", "digit"], "--recipe digit", "did you mean 'digits'"),
        (["data", "nosuch"], "error: nosuch: no such folder or data set", "give a folder"),
        (["train", "--data", "cifar1"], "error: cifar1: no such", "did you mean 'cifar10'"),
        (["loss", "--n", "1"], "--n 1", "--n 11"),
        (["loss", "--batch-size", "5"], "--batch-size 5", "--batch-size 256"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(call_groco, typed, what, remedy):
    failed = call_groco("bench", *typed)
    assert (failed.returncode, failed.stdout) == (2, "")
    (line,) = failed.stderr.strip().splitlines()
    assert what in line
    assert remedy in line

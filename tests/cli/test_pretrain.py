"""`groco pretrain` and `groco knn` as they are typed: results, Ctrl-C, and what a mistake looks like."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from groco_cli.app import run
from groco_cli.distributed import launch
from groco_cli.engine.configuration import to_toml
from groco_cli.engine.recipes import RECIPES
from groco_cli.engine.run_folder import RunFolder
from groco_cli.models import load_encoder

TINY = (
    "--subset",
    "100",
    "--batch-size",
    "32",
    "--negatives",
    "5",
    "--projector-hidden",
    "32",
    "--projector-out",
    "16",
)
TINY += ("--device", "cpu", "--precision", "fp32", "--log-every", "1", "--knn-every", "0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a run of two epochs."""
    run = tmp_path_factory.mktemp("trained") / "run"
    made = subprocess.run(
        [sys.executable, "-m", "groco_cli", "pretrain", *TINY, "--epochs", "2", "--output", str(run)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout
    return run


def test_results_go_to_stdout_and_progress_to_stderr(run_groco, tmp_path):
    made = run_groco("pretrain", *TINY, "--epochs", "1", "--output", str(tmp_path / "a run"), "--json")
    assert made.returncode == 0, made.stderr
    printed = json.loads(made.stdout)
    assert printed["checkpoint"] == str(tmp_path / "a run/checkpoints/latest.safetensors")
    assert 0 <= printed["knn"]["untrained"] <= 1
    curve = [line for line in map(json.loads, (tmp_path / "a run/metrics.jsonl").open()) if line["kind"] == "knn"]
    best = max(curve, key=lambda line: line["top1"])
    assert (printed["knn"]["best"], printed["knn"]["best_epoch"]) == (best["top1"], best["epoch"])
    assert printed["knn"]["trained"] == curve[-1]["top1"]
    for said in ("digits (embedded): 100 images", "cpu", "fp32", "recipe     digits", "epoch 1/1", "waiting"):
        assert said in made.stderr
    assert "1 epoch of 3 steps" in made.stderr
    assert len(made.stderr.splitlines()) < 15
    advice = made.stderr.splitlines()[-1]
    assert shlex.split(advice) == ["now", "type:", "groco", "knn", str(tmp_path / "a run")]


@pytest.mark.parametrize("processes", [2])
def test_a_dry_run_shows_what_would_be_and_leaves_nothing(run_groco, tmp_path, processes):
    shown = run_groco(
        *("pretrain", *TINY, "--dry-run", "--processes", str(processes), "--output", str(tmp_path / "a/run"), "--json")
    )
    assert shown.returncode == 0, shown.stderr
    printed = json.loads(shown.stdout)
    assert (printed["images"], printed["classes"], printed["steps_per_epoch"], printed["steps"]) == (100, 10, 3, 48)
    assert (printed["processes"], printed["batch_size_per_process"]) == (processes, 32 // processes)
    assert printed["disk_needed_bytes"] >= 3 * printed["state_bytes"]
    assert printed["peak_memory_bytes"] > printed["state_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_quiet_says_nothing_but_the_result(call_groco, tmp_path):
    made = call_groco("-q", "pretrain", *TINY, "--epochs", "1", "--output", str(tmp_path / "run"), "--json")
    assert made.stderr == ""
    assert json.loads(made.stdout)


def test_knn_takes_everything_from_the_checkpoint(call_groco, trained):
    shown = call_groco("knn", str(trained), "--k", "20", "--k", "1", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["checkpoint"] == str(trained / "checkpoints/latest.safetensors")
    printed = json.loads(shown.stdout)
    assert list(printed["knn"]) == ["1", "20"]
    assert printed["knn"]["20"]["total"] == printed["queries"] == 360
    assert (printed["bank"], printed["protocol"]) == (2874, "train/test")
    assert printed["knn"]["1"]["top1"] == printed["knn"]["1"]["correct"] / 360
    assert printed["backend"] == "FAISS knn, exact, CPU"


def test_knn_shows_baselines_in_a_table(call_groco, trained):
    checkpoint = str(trained / "checkpoints/latest.safetensors")
    shown = call_groco("knn", checkpoint, "--k", "5", "--bank-size", "300", "--query-size", "50", "--baselines")
    assert shown.returncode == 0, shown.stderr
    for word in ("untrained", "pixels", "trained", "top-1", "top-5", "queries", "FAISS", "T 0.07"):
        assert word in shown.stdout


def test_knn_without_a_checkpoint_takes_the_newest_run(call_groco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert call_groco("pretrain", *TINY, "--epochs", "1").returncode == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["digits", "digits-2"]
    shown = call_groco("knn", "--k", "1", "--json")
    assert json.loads(shown.stdout)["checkpoint"] == "runs/digits-2/checkpoints/latest.safetensors"


def test_a_folder_without_test_images_is_scored_leave_one_out(call_groco, trained, picture_folder):
    folder = picture_folder(*(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(6)))
    checkpoint = str(trained / "checkpoints/latest.safetensors")
    shown = call_groco("knn", checkpoint, "--data", str(folder), "--k", "3", "--json")
    printed = json.loads(shown.stdout)
    assert (printed["protocol"], printed["bank"], printed["queries"]) == ("leave-one-out", 12, 12)


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "groco_cli", "pretrain", *arguments], stderr=subprocess.PIPE, text=True, cwd=cwd
    )


def wait_for_step(run: RunFolder, step: int) -> None:
    for _ in range(1200):
        if run.metrics.exists() and f'"step": {step}' in run.metrics.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the run did not come that far")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_ctrl_c_leaves_a_usable_checkpoint_and_resume_goes_on_from_it(call_groco, tmp_path, monkeypatch, number, code):
    monkeypatch.chdir(tmp_path)
    run = RunFolder(tmp_path / "runs/digits")
    process = start(*TINY, "--epochs", "5", cwd=tmp_path)
    wait_for_step(run, 4)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    last = said.strip().splitlines()[-1]
    assert last.startswith("stopped: after step ")
    assert "groco pretrain --resume" in last
    assert "Traceback" not in said
    stopped_at = int(last.split()[3])
    assert 4 <= stopped_at < 15
    load_encoder(run.latest)

    resumed = call_groco("pretrain", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed at step {stopped_at}" in resumed.stderr
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines() if '"train"' in line]
    assert steps == list(range(1, 16))


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.long), (signal.SIGTERM, 143)]
)
def test_a_signal_that_reaches_the_workers_too_ends_cleanly(tmp_path, picture_folder, number, code):
    """Ctrl-C in a terminal, and what `timeout` and service managers send."""
    folder = picture_folder(*(f"{i}.png" for i in range(48)), size=(40, 40))
    run = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "groco_cli", "pretrain", *TINY, "--recipe", "digits", "--epochs", "40"),
            *("--data", str(folder), "--workers", "1", "--output", str(run.path)),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_step(run, 2)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said.strip().splitlines()[-1].startswith("stopped: after step ")
    assert "Traceback" not in said


@pytest.mark.parametrize(("typed", "decided"), [((), ("--output", "runs/digits")), (("--output", "runs/digits"), ())])
def test_the_processes_of_a_resumed_run_are_told_which_it_is(tmp_path, monkeypatch, typed, decided):
    monkeypatch.chdir(tmp_path)
    settings = RunFolder(Path("runs/digits")).settings
    settings.parent.mkdir(parents=True)
    settings.write_text(to_toml(RECIPES["digits"].settings))
    told = []
    monkeypatch.setattr(launch, "started", lambda wanted, *, also: told.append(also) or True)
    assert run(["pretrain", "--resume", *typed]) == 0
    assert told == [decided]


def test_resume_of_a_finished_run_changes_nothing(call_groco, trained):
    before = (trained / "checkpoints/latest.safetensors").read_bytes()
    assert call_groco("pretrain", "--resume", "--output", str(trained)).returncode == 0
    assert (trained / "checkpoints/latest.safetensors").read_bytes() == before


def test_a_run_in_the_folder_of_its_images_works_before_during_and_at_resume(call_groco, picture_folder, monkeypatch):
    folder = picture_folder(*(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(17)))
    monkeypatch.chdir(folder)
    typed = ("pretrain", "--data", ".", "--recipe", "small-resnet18", "--arch", "test_resnet", "--epochs", "1")
    small = ("--batch-size", "16", "--negatives", "5", "--workers", "0", "--device", "cpu")
    refused = call_groco(*typed, *small, "--output", "cat")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--output cat holds other files, and no run; type --output cat/small-resnet18" in refused.stderr
    for name in ("runs/small-resnet18", "cat/own"):
        made = call_groco(*typed, *small, *(() if name.startswith("runs") else ("--output", name)), "--json")
        assert made.returncode == 0, made.stderr
        assert (json.loads(made.stdout)["run"], Path(name, "plots/curves.png").exists()) == (name, True)
        assert ".: 34 images, 2 classes" in made.stderr
    resumed = call_groco("pretrain", "--resume", "--output", "cat/own")
    assert resumed.returncode == 0, resumed.stderr
    assert "left out cat/own and 1 more" in resumed.stderr
    scored = json.loads(call_groco("knn", "cat/own/checkpoints/latest.safetensors", "--k", "1", "--json").stdout)
    assert (scored["bank"], scored["queries"]) == (34, 34)


@pytest.fixture
def broken(tmp_path, trained, picture_folder) -> dict[str, str]:
    """Things that are wrong, by name."""
    checkpoint = trained / "checkpoints/latest.safetensors"
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-image").mkdir()
    (tmp_path / "no-image/text.jpg").write_text("no picture")
    (tmp_path / "truncated.safetensors").write_bytes(checkpoint.read_bytes()[:100_000])
    (tmp_path / "foreign.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "file").touch()
    (tmp_path / "one/cat").mkdir(parents=True)
    for i in range(8):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / f"one/cat/{i}.png")
    flat = picture_folder("1.png", "2.png", "3.png")
    return {
        "checkpoint": str(checkpoint),
        "run": str(trained),
        "flat": str(flat),
        **{path.stem: str(path) for path in tmp_path.iterdir()},
        "tmp": str(tmp_path),
    }


MISTAKES = [
    # what is typed, exit code, what the line says
    ("pretrain --data {tmp}/absent", 2, "error: {tmp}/absent: no such folder", "give a folder"),
    ("pretrain --data {empty}", 1, "error: {empty}: no image", "ending in"),
    ("pretrain --data {no-image} --batch-size 2", 1, "error: {no-image}: no decodable image", ""),
    ("pretrain --data cifar1", 2, "error: cifar1: no such", "did you mean 'cifar10'"),
    ("pretrain --data {file}", 2, "error: {file} is a file", "give a folder"),
    ("pretrain --arch resnet5O", 2, "--arch resnet5O", "did you mean 'resnet50'"),
    ("pretrain --stem tiny", 2, "--stem tiny", "small"),
    ("pretrain --batch-size 5000", 2, "--batch-size 5000", "2874"),
    ("pretrain --negatives 300", 2, "--negatives 300", "--negatives 254"),
    ("pretrain --batch-size many", 2, "--batch-size", "valid integer"),
    ("pretrain --dry-run --output {run}", 2, "--output", "--resume"),
    ("pretrain --dry-run --output {file}/run", 1, "cannot write", "--output"),
    ("pretrain --epochs 0", 2, "--epochs 0", "1 or more"),
    ("pretrain --save-every 90s", 2, "--save-every 90s", "10min"),
    ("pretrain --keep 0", 2, "--keep 0", "1 or more"),
    ("pretrain --milestones -1", 2, "--milestones -1", "0 or more"),
    ("pretrain --recipe digit", 2, "--recipe digit", "did you mean 'digits'"),
    ("pretrain --config {tmp}/absent.toml", 2, "--config", "settings.toml"),
    ("pretrain --output {run}", 2, "--output", "--resume"),
    ("pretrain --output {file}/run", 1, "cannot write", "another place"),
    ("pretrain --resume --output {tmp}", 2, "--output", "no run"),
    ("pretrain --resume --output {run} --epochs 7", 2, "--resume", "optim.epochs"),
    ("pretrain --device cuda:9", 2, "--device cuda:9", "--device auto"),
    ("pretrain --device gpu", 2, "--device gpu", "type auto"),
    ("pretrain --bach-size 3", 2, "--bach-size", "see 'groco pretrain --help'"),
    ("pretrain --crop-scale 0.5", 2, "--crop-scale", "see 'groco pretrain --help'"),
    ("knn {tmp}/absent.safetensors", 2, "no checkpoint", "a run's folder"),
    ("knn {truncated}", 1, "truncated", "whole"),
    ("knn {foreign}", 1, "no checkpoint that groco knows", "docs/convert.md"),
    ("knn {pickle}", 1, "refused unread", "safetensors"),
    ("knn {checkpoint} --k 5000", 2, "--k 5000", "2874"),
    ("knn {checkpoint} --k 0", 2, "--k 0", "--k 20"),
    ("knn {checkpoint} --temperature 0", 2, "--temperature", "0.07"),
    ("knn {checkpoint} --data {one}", 1, "one class (cat)", "two"),
    ("knn {checkpoint} --data {flat}", 1, "no labels", "sub-folder"),
    ("nkn", 2, "'nkn'", "did you mean 'knn'"),
]


@pytest.mark.parametrize(("typed", "code", "what", "remedy"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_a_mistake_is_one_line_with_its_remedy_and_leaves_nothing(
    call_groco, broken, tmp_path, monkeypatch, typed, code, what, remedy
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    failed = call_groco(*(word.format(**broken) for word in typed.split(" ")))
    lines = failed.stderr.strip().splitlines()
    assert failed.returncode == code, failed.stderr
    assert failed.stdout == ""
    assert what.format(**broken) in lines[-1]
    assert remedy in lines[-1]
    assert [line for line in lines if line.startswith("error:")] == [lines[-1]]
    assert "Traceback" not in failed.stderr
    assert list(elsewhere.iterdir()) == []


def test_knn_without_any_run_says_what_to_type(call_groco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = call_groco("knn")
    assert failed.returncode == 2
    assert "groco pretrain" in failed.stderr


def test_data_can_be_named_by_the_environment(call_groco, tmp_path, monkeypatch):
    monkeypatch.setenv("GROCO_DATA", str(tmp_path / "absent"))
    failed = call_groco("pretrain")
    assert failed.returncode == 2
    assert str(tmp_path / "absent") in failed.stderr


@pytest.mark.long
def test_options_count_over_the_environment_over_the_file_and_all_processes_agree(run_groco, tmp_path):
    file = tmp_path / "some.toml"
    file.write_text('recipe = "digits"\n[optim]\nepochs = 5\nbatch_size = 16\nlearning_rate = 3.0\n')
    environment = {"GROCO_BATCH_SIZE": "32", "GROCO_EPOCHS": "4", "GROCO_OUTPUT": str(tmp_path / "run")}
    shown = run_groco(
        *("pretrain", "--config", str(file), "--epochs", "1", "--processes", "2", "--subset", "64", "--device", "cpu"),
        *("--arch", "test_resnet", "--negatives", "5"),
        **environment,
    )
    assert shown.returncode == 0, shown.stderr
    optim = tomllib.loads((tmp_path / "run/settings.toml").read_text())["optim"]
    assert (optim["epochs"], optim["batch_size"], optim["learning_rate"]) == (1, 32, 3.0)
    assert shown.stderr.count("GROCO_BATCH_SIZE, GROCO_OUTPUT from the environment") == 1


def test_the_run_to_resume_can_be_named_by_the_environment(call_groco, tmp_path, monkeypatch):
    monkeypatch.setenv("GROCO_OUTPUT", str(tmp_path / "absent"))
    failed = call_groco("pretrain", "--resume")
    assert failed.returncode == 2
    assert str(tmp_path / "absent") in failed.stderr


@pytest.mark.parametrize(
    ("variable", "text", "what"),
    [
        ("GROCO_BATCH_SIZE", "0", "--batch-size 0 is out of range (GROCO_BATCH_SIZE in the environment)"),
        ("GROCO_BATCH_SIZE", "many", "GROCO_BATCH_SIZE=many"),
        ("GROCO_BACH_SIZE", "3", "did you mean 'GROCO_BATCH_SIZE'"),
        ("GROCO_RECIPE", "digit", "--recipe digit: no such recipe (GROCO_RECIPE in the environment)"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line(call_groco, monkeypatch, variable, text, what):
    monkeypatch.setenv(variable, text)
    failed = call_groco("pretrain")
    assert (failed.returncode, failed.stdout) == (2, "")
    (line,) = failed.stderr.strip().splitlines()
    assert what in line


@pytest.mark.skipif(os.name != "posix", reason="a terminal is opened through pexpect")
def test_a_terminal_gets_a_bar_and_a_line_an_epoch(tmp_path):
    import pexpect

    command = ["-m", "groco_cli", "pretrain", *TINY, "--epochs", "2", "--output", str(tmp_path / "run")]
    terminal = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=120, dimensions=(24, 160))
    terminal.expect("epoch 1/2")
    terminal.expect("epoch 2/2")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0

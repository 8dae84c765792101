"""`groco pretrain --log-to` as it is typed."""

import json

import pytest

TINY = "--subset 64 --batch-size 32 --epochs 1 --warmup-epochs 0 --negatives 5 --projector-hidden 16 --knn-every 0"
TINY += " --log-every 1 --device cpu --precision fp32 --json"


def test_both_places_lie_in_the_run_s_folder_and_stdout_is_the_result_alone(run_groco, tmp_path):
    for package in ("tensorboard", "wandb"):
        pytest.importorskip(package, reason=f"no package {package}: pip install 'groco[{package}]'")
    run = tmp_path / "run"
    options = ["--log-to", "tensorboard", "--log-to", "wandb", "--output", str(run)]
    made = run_groco("pretrain", *TINY.split(), *options, WANDB_MODE="offline")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["run"] == str(run)
    assert "wandb" not in made.stderr
    assert len(list((run / "tensorboard").glob("events.out.tfevents.*"))) == 1
    assert len(list((run / "wandb").glob("offline-run-*/*.wandb"))) == 1
    assert 'log_to = [\n    "tensorboard",\n    "wandb",\n]' in (run / "settings.toml").read_text()


def test_a_misspelt_place_is_one_line_with_its_remedy(call_groco, tmp_path):
    failed = call_groco("pretrain", "--log-to", "wandbb", "--output", str(tmp_path / "run"))
    assert failed.returncode == 2
    (line,) = failed.stderr.strip().splitlines()
    assert "--log-to wandbb" in line
    assert "did you mean 'wandb'" in line

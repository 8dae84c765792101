"""docs/cluster.md: its sbatch file is a script, and what it runs joins the processes that srun starts."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groco_cli.engine.run_folder import RunFolder

PAGE = Path(__file__).parents[2] / "docs/cluster.md"
TINY = ("--device", "cpu", "--arch", "test_vit", "--subset", "100", "--batch-size", "20", "--epochs", "5")
TINY += ("--projector-hidden", "32", "--projector-out", "16", "--knn-every", "0", "--log-every", "1")
# As srun would: each task with its number, and the step's variables. Where one fails, the others are ended.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    echo $! >> "$HOME/tasks"
done
highest=0
for task in 0 1; do
    wait -n
    code=$?
    [ $code -gt $highest ] && highest=$code
    [ $code -ne 0 ] && kill $(jobs -p) 2>/dev/null
done
exit $highest
"""
# A step that saves so many states, and ends with a code.
STEP = """#!/bin/bash
echo "$@"
mkdir -p "$HOME/runs/$SLURM_JOB_ID/state"
for i in $SAVES; do touch "$HOME/runs/$SLURM_JOB_ID/state/step-$i.pt"; done
exit $CODE
"""
SCONTROL = '#!/bin/bash\necho "$@" >> "$HOME/scontrol"\n'


def sbatch() -> str:
    (script,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return script


def test_the_sbatch_file_is_a_script():
    assert sbatch().startswith("#!/bin/bash\n#SBATCH ")
    subprocess.run(["bash", "-n"], input=sbatch(), text=True, check=True)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Starts the script as SLURM would, with other programs in place of SLURM's: `job(SRUN, "--data", "digits")`."""
    (tmp_path / "job.sh").write_text(sbatch())
    (tmp_path / "bin").mkdir()
    monkeypatch.delenv("RUN", raising=False)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "ENVIRONMENT": "BATCH",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }

    def start(srun: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        python = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
        for name, content in {"srun": srun, "scontrol": SCONTROL, "python": python}.items():
            (tmp_path / "bin" / name).write_text(content)
            (tmp_path / "bin" / name).chmod(0o755)
        return subprocess.Popen(
            ["bash", str(tmp_path / "job.sh"), *arguments],
            env=os.environ | environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Where the script's run goes."""
    return RunFolder(tmp_path / "runs" / str(os.getpid()))


@pytest.mark.parametrize(
    ("code", "saves", "requeued"),
    [
        (143, "1", True),  # stopped
        (0, "1", False),  # finished
        (1, "1", False),  # failed
        (130, "1", False),  # the user's wish
        (143, "", False),  # srun ended other tasks after one had failed
    ],
)
def test_a_job_is_put_back_where_its_run_was_stopped_and_saved(job, run, tmp_path, code, saves, requeued):
    process = job(STEP, "--epochs", "9", CODE=str(code), SAVES=saves)
    printed, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert f"--data {tmp_path}/imagenet --output {run.path} --epochs 9\n" in printed
    put_back = tmp_path / "scontrol"
    assert put_back.exists() == requeued
    if requeued:
        assert put_back.read_text() == f"requeue {os.getpid()}\n"


def test_a_job_that_was_put_back_goes_on_with_its_run(job, run, tmp_path):
    run.path.mkdir(parents=True)
    run.settings.touch()
    for code, saves, times in [(143, "1", 1), (143, "1 2", 2), (143, "1 2", 2), (0, "1 2 3", 2)]:
        process = job(STEP, "--epochs", "9", CODE=str(code), SAVES=saves)
        printed, said = process.communicate(timeout=20)
        assert process.returncode == code, said
        assert printed.endswith(f"groco_cli pretrain --resume --output {run.path}\n")
        assert (tmp_path / "scontrol").read_text().count("requeue") == times


@pytest.mark.slow
def test_the_sbatch_file_trains_in_the_tasks_that_srun_starts_and_goes_on_after_its_time(job, run, tmp_path):
    begun = job(SRUN, "--data", "digits", *TINY)
    for _ in range(1200):
        if run.metrics.exists() and '"step": 3' in run.metrics.read_text():
            break
        time.sleep(0.1)
    for task in (tmp_path / "tasks").read_text().split():
        os.kill(int(task), signal.SIGTERM)
    _, said = begun.communicate(timeout=120)
    assert begun.returncode == 143, said
    assert (said.count("2 processes"), said.count("stopped: after step ")) == (1, 1)
    assert (tmp_path / "scontrol").read_text() == f"requeue {os.getpid()}\n"

    again = job(SRUN)
    printed, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert said.count("resumed at step ") == 1
    assert printed.count("k-NN, k=") == 1
    assert run.latest.exists()
    assert (tmp_path / "scontrol").read_text().count("requeue") == 1

"""docs/cluster.md: its sbatch file is a script, and what it runs joins the processes that srun starts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from groco_cli.engine.run_folder import RunFolder

PAGE = Path(__file__).parents[2] / "docs/cluster.md"
TINY = ("--device", "cpu", "--arch", "test_vit", "--subset", "40", "--batch-size", "20", "--epochs", "1")
TINY += ("--projector-hidden", "32", "--projector-out", "16", "--knn-every", "0")
# As srun would: each task with its number, and the step's variables. It ends where a task of it fails.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" &
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" && wait -n
"""


def sbatch() -> str:
    (script,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return script


def test_the_sbatch_file_is_a_script():
    assert sbatch().startswith("#!/bin/bash\n#SBATCH ")
    subprocess.run(["bash", "-n"], input=sbatch(), text=True, check=True)


@pytest.mark.slow
def test_the_sbatch_file_trains_in_the_tasks_that_srun_starts_and_goes_on(tmp_path):
    (tmp_path / "bin").mkdir()
    for name, content in {"srun": SRUN, "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n'}.items():
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(sbatch())
    run = RunFolder(tmp_path / "run")
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RUN": str(run.path),
        "OMP_NUM_THREADS": "1",
        "ENVIRONMENT": "BATCH",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    for said in ("2 processes", "resumed at step 2"):
        done = subprocess.run(
            ["bash", str(tmp_path / "job.sh"), "--data", "digits", *TINY],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(said) == 1
        assert done.stdout.count("k-NN, k=") == 1
        assert run.latest.exists()

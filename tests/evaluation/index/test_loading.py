"""FAISS is loaded with the processor's own kernels, and nothing is left behind in the environment."""

import json
import os
import subprocess
import sys

import pytest
import torch

from groco_cli.evaluation.index.loading import load_faiss

LOADED = """
import json, os
from threadpoolctl import threadpool_info
from groco_cli.evaluation.index.loading import load_faiss
module, why = load_faiss()
cores = [one["architecture"] for one in threadpool_info() if "faiss" in one["filepath"] and one["user_api"] == "blas"]
print(json.dumps({"cores": cores, "why": why, "variable": os.environ.get("OPENBLAS_CORETYPE")}))
"""


def loaded(**environment: str) -> dict:
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    done = subprocess.run([sys.executable, "-c", LOADED], env=clean | environment, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_openblas_takes_the_kernels_of_this_processor():
    found = loaded()
    expected = {"AVX512": "SkylakeX", "AVX2": "Haswell"}.get(torch.backends.cpu.get_cpu_capability())
    if not expected or not found["cores"]:
        pytest.skip("another processor, or a FAISS with another BLAS")
    assert found == {"cores": [expected], "why": "", "variable": None}


def test_what_the_user_chose_stays():
    found = loaded(OPENBLAS_CORETYPE="Nehalem")
    assert found["variable"] == "Nehalem"
    assert found["cores"] in ([], ["Nehalem"])


def test_an_absent_faiss_is_told(without_faiss):
    assert load_faiss() == (None, "FAISS is not installed")


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("raise ImportError('libcudart.so.12: cannot open\\nmore')", "libcudart.so.12: cannot open"),
        (
            "raise RuntimeError('faiss-gpu installed but nvidia-cublas-cu12 is missing')",
            "nvidia-cublas-cu12 is missing",
        ),
        ("raise OSError('no such file')", "no such file"),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("import sys; sys.exit(1)", "its compiled part is missing"),
    ],
)
def test_a_broken_faiss_is_told(monkeypatch, tmp_path, trouble: str, told: str):
    (tmp_path / "faiss.py").write_text(trouble)
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    module, why = load_faiss()
    assert module is None
    assert why.startswith("FAISS cannot be loaded: ")
    assert why.endswith(told)
    assert "faiss" not in sys.modules

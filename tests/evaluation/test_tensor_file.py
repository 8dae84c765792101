"""Files written tensor by tensor, as safetensors itself reads them."""

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from groco_cli.evaluation.tensor_file import write_tensors

TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_any_type_and_shape_are_read_back_by_safetensors(tmp_path: Path, dtype: str):
    numbers = torch.arange(24).reshape(4, 6).to(getattr(torch, dtype))
    tensors = {"a": numbers[1:3], "turned": numbers.T, "one": numbers[2, 3], "none": numbers[:0], "größe": numbers[0]}
    path = tmp_path / "x.safetensors"
    write_tensors(path, tensors, {"about": '{"é": 1}'})
    found = load_file(path)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"about": '{"é": 1}'}


def test_each_tensor_begins_where_safetensors_itself_has_it(tmp_path: Path):
    tensors = {"a": torch.zeros(3, dtype=torch.uint8), "b": torch.zeros(5), "c": torch.zeros(1, dtype=torch.int64)}
    write_tensors(tmp_path / "x", tensors, {})
    theirs, ours = save(tensors), (tmp_path / "x").read_bytes()

    def entries(content: bytes) -> dict:
        length = int.from_bytes(content[:8], "little")
        return {k: v for k, v in json.loads(content[8 : 8 + length]).items() if k != "__metadata__"}

    assert entries(ours) == entries(theirs)
    assert entries(ours)["a"]["data_offsets"] == [28, 31]


def test_nothing_is_copied_to_be_written(tmp_path: Path):
    tensor = torch.zeros(1_000_000)
    tracemalloc.start()
    write_tensors(tmp_path / "x", {"bank": tensor}, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size > tensor.nbytes
    assert peak < tensor.nbytes / 10

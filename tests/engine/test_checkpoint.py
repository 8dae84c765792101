"""States: what comes back, and that a damaged one never passes for whole."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from groco_cli.engine import checkpoint
from groco_cli.engine.checkpoint import DamagedStateError, TrainingState
from groco_cli.errors import GrocoError, UsageError


def built(width: int = 7, **settings: object) -> TrainingState:
    """A small model with momentum, one step in."""
    model = nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(4, 5)).square().mean().backward()
    optimizer.step()
    return TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), settings, step=3, overflows=2)


def everything(state: TrainingState) -> list[torch.Tensor]:
    momentum = [memory["momentum_buffer"] for memory in state.optimizer.state.values()]
    return [tensor.clone() for tensor in (*state.model.state_dict().values(), *momentum)]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture
def saved(tmp_path) -> tuple[TrainingState, Path]:
    state = built(lr=0.1)
    state.save(tmp_path / "state.pt")
    return state, tmp_path / "state.pt"


def test_everything_comes_back(saved):
    state, path = saved
    other = built(lr=0.1)
    other.step = other.overflows = 0
    assert not same(everything(other), everything(state))
    other.load(path)
    assert same(everything(other), everything(state))
    assert (other.step, other.overflows) == (3, 2)


def test_states_are_told_apart_by_their_hashes(saved, tmp_path):
    _, path = saved
    copy, later = tmp_path / "copy.pt", built(lr=0.1)
    copy.write_bytes(path.read_bytes())
    later.save(tmp_path / "later.pt")
    first, again, other = (built(lr=0.1).load(file) for file in (path, copy, tmp_path / "later.pt"))
    assert first == again != other
    assert " " not in first


@pytest.mark.parametrize("fused_before", [False, True])
def test_by_which_kernels_it_steps_is_for_the_present_optimiser_to_say(tmp_path, fused_before):
    states = []
    for fused in (fused_before, not fused_before):
        model = nn.Linear(5, 3)
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        states.append(TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False)))
    for state in states:
        state.model(torch.ones(4, 5)).sum().backward()
        state.optimizer.step()
    states[0].save(tmp_path / "state.pt")
    states[1].load(tmp_path / "state.pt")
    assert states[1].optimizer.param_groups[0]["fused"] is not fused_before
    for state in states:
        state.optimizer.step()
    assert states[1].optimizer.state_dict()["state"][0]["step"] == 2
    torch.testing.assert_close(states[1].model.weight, states[0].model.weight)


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(saved):
    state, path = saved
    whole, noticed = path.read_bytes(), []
    weight = state.model[0].weight.detach().numpy().tobytes()
    inside = range(whole.index(weight), whole.index(weight) + len(weight))
    for place in [*range(0, len(whole), 29), *inside]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        other = built(lr=0.1)
        try:
            other.load(path)
        except DamagedStateError as error:
            noticed.append((place, error.message))
        else:
            assert same(everything(other), everything(state)), place
    assert {place for place, _ in noticed} > set(inside)
    assert all(str(path) in message and "\n" not in message for _, message in noticed)


@pytest.mark.parametrize("length", [0, 1, 100, 0.5, 0.99])
def test_a_file_cut_short_is_noticed(saved, length):
    _, path = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: length if isinstance(length, int) else int(length * len(whole))])
    with pytest.raises(DamagedStateError, match="damaged"):
        built(lr=0.1).load(path)


def test_a_file_of_something_else_is_damaged(saved):
    _, path = saved
    parts = torch.load(path, weights_only=True)
    for other in ([1, 2], {}, {name: part for name, part in parts.items() if name != "optimizer"}):
        torch.save(other, path)
        with pytest.raises(DamagedStateError, match="something else than a state"):
            built(lr=0.1).load(path)
    path.write_text("no state")
    with pytest.raises(DamagedStateError):
        built(lr=0.1).load(path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOENT], ids=errno.errorcode.get)
def test_a_file_that_cannot_be_read_now_is_not_taken_for_damaged(saved, monkeypatch, number):
    _, path = saved

    def fail(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", fail)
    other = built(lr=0.1)
    before = everything(other)
    with pytest.raises(GrocoError) as caught:
        other.load(path)
    assert not isinstance(caught.value, DamagedStateError)
    assert caught.value.message == f"cannot read {path}: {os.strerror(number)}"
    assert same(everything(other), before)


@pytest.mark.parametrize("where", ["file", "tensors"])
def test_too_little_memory_is_not_taken_for_damage(saved, monkeypatch, where):
    _, path = saved

    def fail(*_: object, **__: object) -> None:
        if where == "file":
            raise MemoryError
        torch.empty(10**15)  # what torch raises is no MemoryError

    monkeypatch.setattr(*{"file": (Path, "read_bytes"), "tensors": (checkpoint.torch, "load")}[where], fail)
    with pytest.raises(GrocoError, match=f"not enough memory to read {path}") as caught:
        built(lr=0.1).load(path)
    assert not isinstance(caught.value, DamagedStateError)


@pytest.mark.parametrize(("what", "count"), [("training images", 1_281_166), ("steps per epoch", 1250)])
def test_a_state_of_a_run_on_other_images_is_refused_and_changes_nothing(tmp_path, what, count):
    state, other = built(), built()
    state.data = {"training images": 1_281_167, "steps per epoch": 1251}
    state.save(tmp_path / "state.pt")
    other.data = state.data | {what: count}
    before = everything(other)
    with pytest.raises(UsageError, match=f"on {state.data[what]:,} {what}, and now there are {count:,}") as caught:
        other.load(tmp_path / "state.pt")
    assert "put the images back" in caught.value.hint
    assert same(everything(other), before)
    other.data = state.data
    other.load(tmp_path / "state.pt")
    assert same(everything(other), everything(state))


def test_a_state_of_a_run_on_images_of_other_names_is_refused_and_one_that_does_not_know_them_is_not(tmp_path):
    state, other = built(), built()
    state.images, other.images = "a3f5", "77b0"
    state.save(tmp_path / "state.pt")
    with pytest.raises(UsageError, match="on images of other names") as caught:
        other.load(tmp_path / "state.pt")
    assert "--data" in caught.value.hint
    other.images = ""
    other.load(tmp_path / "state.pt")
    assert same(everything(other), everything(state))
    state.images = ""
    state.save(tmp_path / "older.pt")
    other.images = "77b0"
    other.load(tmp_path / "older.pt")


def test_a_state_of_a_run_with_other_settings_is_refused_and_changes_nothing(saved):
    _, path = saved
    other = built(lr=0.3)
    before = everything(other)
    with pytest.raises(UsageError, match=r"run with lr = 0\.1, not 0\.3"):
        other.load(path)
    assert same(everything(other), before)


def test_settings_that_came_later_do_not_keep_a_state_from_being_taken_up(saved):
    state, path = saved
    other = built(lr=0.1, invented_later=5)
    other.load(path)
    assert same(everything(other), everything(state))


def test_a_whole_state_that_does_not_fit_says_so(saved):
    _, path = saved
    with pytest.raises(GrocoError, match="does not fit this run") as caught:
        built(width=8, lr=0.1).load(path)
    assert not isinstance(caught.value, DamagedStateError)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_found_in_weights_statistics_and_momentum(bad):
    assert built().is_finite()
    for place in (
        lambda state: state.model[0].weight,
        lambda state: state.model[1].running_var,
        lambda state: next(iter(state.optimizer.state.values()))["momentum_buffer"],
    ):
        state = built()
        with torch.no_grad():
            place(state).flatten()[1:2].fill_(bad)
        assert not state.is_finite()

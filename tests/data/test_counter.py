from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groco_cli.data.counter import uniforms

MASK = (1 << 64) - 1
words = st.integers(-(2**63), 2**63 - 1)


def draws(count: int = 4, *, samples: np.ndarray, **key: int) -> np.ndarray:
    return uniforms(count, **{"seed": 0, "epoch": 0, "view": 0} | key, samples=samples)


def splitmix64(state: int) -> tuple[int, int]:
    """One step of the published generator on Python's integers: (next state, output)."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return state, z ^ (z >> 31)


def test_the_naive_generator_gives_the_published_numbers():
    # The first outputs for seed 1234567 of the reference C code (prng.di.unimi.it/splitmix64.c), as Rosetta Code lists.
    state, numbers = 1234567, []
    for _ in range(5):
        state, number = splitmix64(state)
        numbers.append(number)
    assert numbers == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(seed=words, epoch=words, view=words, sample=words)
def test_equals_splitmix64_seeded_by_its_chained_key(seed: int, epoch: int, view: int, sample: int):
    state = 0
    for part in (seed, epoch, view, sample):
        state = splitmix64(state ^ (part & MASK))[1]
    expected = []
    for _ in range(3):
        state, number = splitmix64(state)
        expected.append((number >> 11) / 2**53)
    found = uniforms(3, seed=seed, epoch=epoch, view=view, samples=np.array([sample]))
    np.testing.assert_array_equal(found, [expected])


def test_a_sample_draws_the_same_in_any_batch():
    alone = np.concatenate([draws(samples=np.array([sample])) for sample in range(50)])
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(draws(samples=np.arange(50)), alone)
    np.testing.assert_array_equal(draws(samples=order), alone[order])


def test_fewer_draws_are_the_beginning_of_more():
    samples = np.arange(20)
    np.testing.assert_array_equal(draws(3, samples=samples), draws(30, samples=samples)[:, :3])


def test_empty_batches_are_fine():
    assert draws(4, samples=np.array([], dtype=np.int64)).shape == (0, 4)


def test_every_part_of_the_key_counts():
    samples = np.arange(1000)
    keys = [{}, {"seed": 1}, {"epoch": 1}, {"view": 1}, {"seed": 1, "epoch": 1}, {"epoch": 1, "view": 1}, {"seed": -1}]
    tables = [draws(samples=samples, **key) for key in keys]
    for one, other in combinations(tables, 2):
        assert not np.intersect1d(one, other).size


@pytest.mark.parametrize("vary", ["seed", "epoch", "view", "sample", "position"])
def test_uniform_and_uncorrelated_along_every_part_of_the_key(vary: str):
    n = 100_000
    if vary == "sample":
        values = draws(1, samples=np.arange(n)).ravel()
    elif vary == "position":
        values = draws(n, samples=np.array([7])).ravel()
    else:
        samples = np.arange(100)
        values = np.stack([draws(1, samples=samples, **{vary: i})[:, 0] for i in range(n // 100)]).T.ravel()
    assert values.min() >= 0
    assert values.max() < 1
    # Five standard errors; the Kolmogorov-Smirnov statistic passes 2 / sqrt(n) once in 1,500 times.
    assert abs(values.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
    assert abs(values.var() - 1 / 12) < 5 * (1 / 180 / n) ** 0.5
    ranks = np.arange(n)
    ordered = np.sort(values)
    assert max((ordered - ranks / n).max(), ((ranks + 1) / n - ordered).max()) < 2 / n**0.5
    for lag in (1, 2, 3, 10, 100):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 5 / n**0.5

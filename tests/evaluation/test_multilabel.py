"""Votes for several classes and 11-point AP against naive loops in exact fractions, and cases worked by hand."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from groco_cli.evaluation.knn import predict
from groco_cli.evaluation.multilabel import average_precision, log_votes, score_votes
from groco_cli.evaluation.neighbours import Neighbours, find_neighbours


def devkit_ap(scores: list[float], truth: list[int]) -> Fraction:
    """VOC2007's definition as a loop: truth is 1 (shown), 0 (difficult) or -1; recall and precision as fractions."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # stable, as MATLAB's sort
    positives = sum(t > 0 for t in truth)
    curve, right, wrong = [], 0, 0
    for i in order:
        right += truth[i] > 0
        wrong += truth[i] < 0
        if right + wrong:
            curve.append((Fraction(right, positives), Fraction(right, right + wrong)))
    levels = [max((p for r, p in curve if r >= Fraction(t, 10)), default=Fraction(0)) for t in range(11)]
    return sum(levels) / 11


def ap(scores: list[float], truth: list[int]) -> float:
    of = torch.tensor(truth)
    return average_precision(torch.tensor(scores, dtype=torch.float64), of == 1, of == 0)


@given(
    st.lists(
        st.tuples(st.sampled_from([-math.inf, 0.0, 0.25, 0.5, 1.0, 2.0]), st.sampled_from([1, 0, -1])),
        min_size=1,
        max_size=60,
    ).filter(lambda pictures: any(truth == 1 for _, truth in pictures))
)
def test_equals_the_devkits_loop_with_ties_and_difficult_pictures(pictures: list[tuple[float, int]]):
    scores, truth = [list(column) for column in zip(*pictures, strict=True)]
    assert ap(scores, truth) == pytest.approx(float(devkit_ap(scores, truth)), abs=1e-12)


def test_cases_worked_by_hand():
    assert ap([3, 2, 1], [1, 1, -1]) == 1
    assert ap([3, 2, 1], [-1, -1, 1]) == pytest.approx(1 / 3)
    # Recall 1/2 at precision 1 (levels 0 to 0.5), recall 1 at precision 2/3 (the other five).
    assert ap([4, 3, 2, 1], [1, -1, 1, -1]) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    # Precision 1/2 at recall 1/2 is raised to the 2/3 that recall 1 reaches.
    assert ap([3, 2, 1], [-1, 1, 1]) == pytest.approx(2 / 3)


def test_a_recall_of_three_in_ten_reaches_level_three():
    # Right, right, right, then 7 wrong, then 7 right: levels 0 to 0.3 are reached at precision 1, not 0 to 0.2.
    truth = [1] * 3 + [-1] * 7 + [1] * 7
    assert ap([float(-i) for i in range(17)], truth) == pytest.approx((4 * 1 + 7 * 10 / 17) / 11)


def test_difficult_pictures_are_left_out_of_the_ranking():
    assert ap([9, 8, 3, 2, 1], [0, 0, 1, 0, -1]) == 1
    assert ap([9, 3], [-1, 1]) == ap([9, 5, 3], [-1, 0, 1]) == 0.5


def test_of_equal_scores_the_first_comes_first():
    assert ap([1, 1], [1, -1]) == 1
    assert ap([1, 1], [-1, 1]) == 0.5


def neighbours_of(bank: int, queries: int, k: int) -> Neighbours:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(bank + queries, 5, generator=generator)
    return find_neighbours(features[:bank], features[bank:], k, device=torch.device("cpu"))


def table(count: int, classes: int, share: float, seed: int) -> Tensor:
    return torch.rand(count, classes, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("temperature", [0.07, 1.0, math.inf])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_votes_equal_a_naive_sum_and_rank_queries_alike(k: int, temperature: float):
    shown = table(30, 6, 0.3, seed=1)
    neighbours = neighbours_of(30, 20, 9)
    votes = log_votes(neighbours, shown, k=k, temperature=temperature)
    for query in range(20):
        for label in range(6):
            cosines = [
                float(neighbours.similarities[query, j]) for j in range(k) if shown[neighbours.rows[query, j], label]
            ]
            total = sum(math.exp(cosine / temperature) for cosine in cosines)
            assert float(votes[query, label]) == pytest.approx(math.log(total) if total else -math.inf)


def test_pictures_of_one_class_each_are_ranked_as_by_the_usual_vote():
    labels = torch.arange(30) % 6
    shown = torch.nn.functional.one_hot(labels, 6).bool()
    neighbours = neighbours_of(30, 20, 9)
    votes = log_votes(neighbours, shown, k=9, temperature=0.07)
    assert torch.equal(votes.argmax(dim=1), predict(neighbours, labels, k=9, temperature=0.07))


def test_a_low_temperature_does_not_overflow():
    neighbours = Neighbours(torch.tensor([[1.0, 0.5], [0.9, 0.8]]), torch.tensor([[0, 1], [0, 1]]), "by hand")
    votes = log_votes(neighbours, torch.tensor([[True], [True]]), k=2, temperature=1e-4)
    assert votes.isfinite().all()
    assert votes[0] > votes[1]


def test_scores_equal_naive_ones():
    votes = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shown, difficult = table(40, 5, 0.3, seed=2), table(40, 5, 0.2, seed=3)
    shown[:, 3] = False
    difficult &= ~shown
    score = score_votes(votes, shown, difficult)
    truth = shown.long() * 2 + difficult.long() - 1
    each = [float(devkit_ap(votes[:, c].tolist(), truth[:, c].tolist())) for c in (0, 1, 2, 4)]
    assert score.mean_ap == pytest.approx(sum(each) / 4)
    assert score.absent == (3,)
    hits = [bool(truth[i, max(range(5), key=lambda c, i=i: float(votes[i, c]))] >= 0) for i in range(40)]
    assert score.hit_rate == sum(hits) / 40
    assert 0 < sum(hits) < 40


def test_a_query_without_a_vote_is_no_hit():
    votes = torch.tensor([[-math.inf, -math.inf], [0.0, -math.inf]])
    score = score_votes(votes, torch.tensor([[True, False], [True, False]]), torch.zeros(2, 2, dtype=torch.bool))
    assert score.hit_rate == 0.5


def test_a_difficult_class_is_a_hit_all_the_same():
    votes = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    shown = torch.tensor([[True, False], [True, False]])
    score = score_votes(votes, shown, torch.tensor([[False, True], [False, False]]))
    assert score.hit_rate == 1

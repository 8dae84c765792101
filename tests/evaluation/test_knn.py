"""k-NN against a double loop in float64, against scikit-learn, and against cases worked by hand."""

import math
import re
import sys
from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation import knn
from groco_cli.evaluation.knn import KS, KNNScore, knn_classify, predict, score_neighbours
from groco_cli.evaluation.neighbours import find_neighbours

CPU = torch.device("cpu")


def features(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    """Of lengths between 0.1 and 10, for k-NN has to normalise them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 10 ** (torch.rand(count, 1, generator=generator) * 2 - 1)
    return torch.randn(count, dim, generator=generator) * lengths


def labels(count: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def assert_same(found: KNNScore, expected: KNNScore) -> None:
    assert astuple(found) == pytest.approx(astuple(expected))


@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0, 50.0])
@pytest.mark.parametrize("classes", [2, 7, 40])
def test_equals_a_naive_loop_for_every_k(naive_knn, classes: int, temperature: float):
    bank, queries = features(40), features(25, seed=1)
    bank_labels, truth = labels(40, classes), labels(25, classes, seed=1)
    ks = range(1, 41, 3)
    scores = knn_classify(bank, bank_labels, queries, truth, ks, temperature)
    assert list(scores) == list(ks)
    for k in ks:
        assert_same(scores[k], naive_knn(bank, bank_labels, queries, truth, k, temperature))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_type_of_feature_is_taken(naive_knn, dtype: torch.dtype):
    bank, queries = features(30).to(dtype), features(20, seed=1).to(dtype)
    bank_labels, truth = labels(30, 5), labels(20, 5, seed=1)
    scores = knn_classify(bank, bank_labels, queries, truth, (1, 7))
    for k, score in scores.items():
        assert_same(score, naive_knn(bank, bank_labels, queries, truth, k, 0.07))


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_at_an_infinite_temperature_the_most_frequent_neighbour_wins(k: int):
    bank, queries = features(60), features(40, seed=1)
    bank_labels, truth = labels(60, 4), labels(40, 4, seed=1)
    unit, asked = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (bank, queries))
    correct = 0
    for row, query in enumerate(asked @ unit.T):
        counts = Counter(bank_labels[query.argsort(descending=True)[:k]].tolist())
        correct += min(counts, key=lambda label: (-counts[label], label)) == int(truth[row])
    assert 0 < correct < 40
    assert knn_classify(bank, bank_labels, queries, truth, (k,), math.inf)[k].correct == correct


@pytest.mark.parametrize("temperature", [0.07, math.inf])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_predictions_are_those_that_were_scored(k: int, temperature: float):
    bank, queries = features(30), features(4100, seed=1)
    bank_labels, truth = labels(30, 5), labels(4100, 5, seed=1)
    found = find_neighbours(bank, queries, 12, device=CPU)
    predicted = predict(found, bank_labels, k=k, temperature=temperature)
    score = score_neighbours(found, bank_labels, truth, ks=(k,), temperature=temperature)[k]
    assert int((predicted == truth).sum()) == score.correct


def test_of_equal_votes_the_lower_class_is_predicted():
    found = find_neighbours(torch.tensor([[2.0, 0.0]] * 3), torch.tensor([[1.0, 0.0]]), 3, device=CPU)
    assert predict(found, torch.tensor([5, 2, 9]), k=3, temperature=0.07).tolist() == [2]


def test_equals_scikit_learns_weighted_classifier():
    bank, queries = features(300, dim=16), features(200, dim=16, seed=1)
    bank_labels, truth = labels(300, 4), labels(200, 4, seed=1)
    scores = knn_classify(bank, bank_labels, queries, truth)
    assert tuple(scores) == KS == (1, 10, 20)
    for k, score in scores.items():
        theirs = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
        ).fit(bank.double(), bank_labels)
        assert score.correct == (theirs.predict(queries.double()) == truth.numpy()).sum()
        assert score.total == 200
        assert score.top1 == score.correct / 200


def test_more_queries_than_are_counted_at_once(naive_knn):
    bank, queries = features(12, dim=2), features(4100, dim=2, seed=1)
    bank_labels, truth = labels(12, 3), labels(4100, 3, seed=1)
    scores = knn_classify(bank, bank_labels, queries, truth, (3,))
    assert_same(scores[3], naive_knn(bank, bank_labels, queries, truth, 3, 0.07))


def test_votes_are_weighed_by_hand():
    # Cosines 1 of class 0, 0.8 and 0.8 of class 1: e^(1/T) against 2 e^(0.8/T), which is more from T = 0.2 / ln 2 on.
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    query, of_bank = torch.tensor([[1.0, 0.0]]), torch.tensor([0, 1, 1])
    even = 0.2 / math.log(2)
    for temperature, winner in ((even * 0.99, 0), (even * 1.01, 1)):
        for truth in (0, 1):
            score = knn_classify(bank, of_bank, query, torch.tensor([truth]), (3,), temperature)[3]
            assert (score.correct, score.top5) == (int(truth == winner), 1.0)


@pytest.mark.parametrize("bank_labels", [[5, 2, 9], [9, 5, 2], [2, 9, 5]])
def test_of_equal_votes_the_lower_class_comes_first(bank_labels: list[int]):
    bank, query = torch.tensor([[2.0, 0.0]] * 3), torch.tensor([[1.0, 0.0]])
    correct = {
        truth: knn_classify(bank, torch.tensor(bank_labels), query, torch.tensor([truth]), (3,))[3].correct
        for truth in (2, 5, 9)
    }
    assert correct == {2: 1, 5: 0, 9: 0}


def test_the_sixth_of_equal_votes_is_not_among_five():
    bank, query = torch.ones(6, 3), torch.ones(1, 3)
    for truth in range(6):
        score = knn_classify(bank, torch.tensor([3, 1, 5, 0, 2, 4]), query, torch.tensor([truth]), (6,))[6]
        assert score.top5 == (truth < 5)


def test_a_class_without_a_vote_is_not_among_five():
    # Of two classes, one has all the votes: the other comes second, but by none.
    bank, of_bank = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([1, 0])
    score = knn_classify(bank, of_bank, torch.tensor([[1.0, 0.1]]), torch.tensor([0]), (1, 2))
    assert (score[1].top5, score[2].top5) == (0.0, 1.0)


def test_a_class_that_the_bank_lacks_is_never_right(naive_knn):
    bank, queries = features(20), features(12, seed=1)
    bank_labels, truth = labels(20, 3), labels(12, 3, seed=1)
    truth[::2] = torch.tensor([3, 4, 7, 100, 3, 5])
    scores = knn_classify(bank, bank_labels, queries, truth, (20,))
    assert_same(scores[20], naive_knn(bank, bank_labels, queries, truth, 20, 0.07))
    assert scores[20].top5 == 0.5


def test_labels_may_be_any_numbers_and_take_no_room():
    """A place for each number up to the largest would be 7 PB."""
    bank, queries, of_bank, truth = features(30), features(20, seed=1), labels(30, 4), labels(20, 4, seed=1)
    far = torch.tensor([3, 10**6, 10**12, 10**15])  # in the same order: of equal votes the lower number still wins
    scores = knn_classify(bank, of_bank, queries, truth, (1, 9), math.inf)
    assert knn_classify(bank, far[of_bank], queries, far[truth], (1, 9), math.inf) == scores
    found = find_neighbours(bank, queries, 9, device=CPU)
    predicted, expected = (predict(found, numbers, k=9, temperature=math.inf) for numbers in (far[of_bank], of_bank))
    assert torch.equal(predicted, far[expected])


@pytest.mark.parametrize("votes", [1, 17])
def test_few_queries_are_counted_at_once_where_classes_are_many(monkeypatch, votes: int):
    bank, queries, of_bank, truth = features(30), features(20, seed=1), labels(30, 7), labels(20, 7, seed=1)
    scores = knn_classify(bank, of_bank, queries, truth, (1, 9))
    monkeypatch.setattr(knn, "_VOTES", votes)
    assert knn_classify(bank, of_bank, queries, truth, (1, 9)) == scores


def test_length_does_not_count():
    bank, queries, of_bank, truth = features(30), features(20, seed=1), labels(30, 3), labels(20, 3, seed=1)
    longer = features(1, dim=30, seed=2).abs().T
    scores = knn_classify(bank, of_bank, queries, truth, (1, 9))
    assert knn_classify(bank * longer, of_bank, queries * 1000, truth, (1, 9)) == scores


@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e37])
@pytest.mark.parametrize("without_faiss", [False, True])
def test_features_far_from_one_are_told_apart_as_others(monkeypatch, without_faiss: bool, scale: float):
    if without_faiss:
        monkeypatch.setitem(sys.modules, "faiss", None)
    bank, queries, of_bank, truth = features(30), features(20, seed=1), labels(30, 3), labels(20, 3, seed=1)
    scores = knn_classify(bank, of_bank, queries, truth, (1, 9))
    assert knn_classify(bank * scale, of_bank, queries * scale, truth, (1, 9)) == scores


@pytest.mark.parametrize("k", [1, 4, 19])
def test_leave_one_out_finds_the_nearest_others(k: int):
    bank = features(20)
    found = find_neighbours(bank, None, k, device=CPU)
    unit = bank.double() / bank.double().norm(dim=1, keepdim=True)
    for row in range(20):
        others = [other for other in range(20) if other != row]
        nearest = sorted(others, key=lambda other: -float(unit[row] @ unit[other]))[:k]
        assert found.rows[row].tolist() == nearest
        expected = torch.stack([unit[row] @ unit[other] for other in nearest])
        torch.testing.assert_close(found.similarities[row].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 10, 29])
def test_leave_one_out_among_exact_copies_leaves_out_the_image_itself(k: int):
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    bank = features(6).repeat(5, 1)[order]  # six pictures, five times each
    found = find_neighbours(bank, None, k, device=CPU)
    unit = bank.double() / bank.double().norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    for row in range(30):
        rows = found.rows[row].tolist()
        assert row not in rows
        assert len(set(rows)) == k
        nearest = sorted((float(cosines[row, other]) for other in range(30) if other != row), reverse=True)[:k]
        torch.testing.assert_close(cosines[row, rows], torch.tensor(nearest, dtype=torch.float64))


@pytest.mark.parametrize("copies", [1, 4])
def test_leave_one_out_scores_equal_a_naive_loop(naive_knn, copies: int):
    bank, of_bank = features(24).repeat(copies, 1), labels(24, 4).repeat(copies)
    for k in (1, 2, 3, 5, 10, 23):
        found = find_neighbours(bank, None, k, device=CPU)
        scores = score_neighbours(found, of_bank, of_bank, ks=(k,), temperature=0.07)
        assert_same(scores[k], naive_knn(bank, of_bank, None, of_bank, k, 0.07))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("without_faiss", [False, True])
def test_of_equally_near_ones_of_other_classes_the_first_vote(naive_knn, monkeypatch, without_faiss: bool, k: int):
    """Each picture is in the bank four times, under labels of its own: at the cut, which are kept decides."""
    if without_faiss:
        monkeypatch.setitem(sys.modules, "faiss", None)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    bank, of_bank = features(20).repeat(4, 1)[order], labels(80, 6)
    queries, truth = features(60, seed=1), labels(60, 6, seed=1)
    score = knn_classify(bank, of_bank, queries, truth, (k,))[k]
    assert_same(score, naive_knn(bank, of_bank, queries, truth, k, 0.07))
    found = find_neighbours(bank, None, k, device=CPU)
    alone = score_neighbours(found, of_bank, of_bank, ks=(k,), temperature=0.07)[k]
    assert_same(alone, naive_knn(bank, of_bank, None, of_bank, k, 0.07))


def test_neighbours_found_once_serve_every_smaller_k():
    bank, of_bank, queries, truth = features(30), labels(30, 4), features(20, seed=1), labels(20, 4, seed=1)
    found = find_neighbours(bank, queries, 15, device=CPU)
    together = score_neighbours(found, of_bank, truth, ks=(2, 15), temperature=0.07)
    assert together == {k: knn_classify(bank, of_bank, queries, truth, (k,))[k] for k in (2, 15)}


def test_strided_features_are_read_rightly():
    bank, of_bank, queries, truth = features(30), labels(30, 4), features(20, seed=1), labels(20, 4, seed=1)
    strided = [x.T.contiguous().T for x in (bank, queries)]
    scores = knn_classify(bank, of_bank, queries, truth, (5,))
    assert knn_classify(strided[0], of_bank, strided[1], truth, (5,)) == scores


def test_inputs_are_left_as_they_were():
    inputs = features(30), labels(30, 4), features(20, seed=1), labels(20, 4, seed=1)
    before = [x.clone() for x in inputs]
    knn_classify(*inputs, (5,))
    torch.testing.assert_close(list(inputs), before, rtol=0, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("part", "name"), [(0, "bank"), (2, "queries")])
def test_a_feature_that_is_not_finite_is_told(value: float, part: int, name: str):
    inputs = [features(10), labels(10, 3), features(5, seed=1), labels(5, 3)]
    inputs[part][3, 2] = value
    with pytest.raises(GrocoError, match=f"a feature of the {name} is not finite"):
        knn_classify(*inputs, (1,))


def test_features_of_different_length_are_told():
    with pytest.raises(GrocoError, match="bank has features of length 6, the queries of 4"):
        knn_classify(features(10), labels(10, 3), features(5, dim=4), labels(5, 3), (1,))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bank": torch.ones(10)}, "the features of the bank are of shape (10,)"),
        ({"bank": torch.ones(10, 0)}, "the features of the bank are of shape (10, 0)"),
        ({"queries": torch.ones(0, 6)}, "the features of the queries are of shape (0, 6)"),
        ({"queries": np.ones((5, 6))}, "the features of the queries are no tensor but ndarray"),
        ({"of_bank": list(range(10))}, "the labels of the bank are no tensor but list"),
        ({"of_bank": labels(9, 3)}, "of the bank are of shape (10, 6), their labels of (9,)"),
        ({"truth": labels(4, 3)}, "of the queries are of shape (5, 6), their labels of (4,)"),
        ({"truth": labels(5, 3)[:, None]}, "their labels of (5, 1)"),
        ({"truth": labels(5, 3) - 1}, "a label of the queries is no whole number from 0 on"),
        ({"of_bank": labels(10, 3).float()}, "a label of the bank is no whole number from 0 on"),
    ],
    ids=["flat", "length 0", "no queries", "numpy", "list", "few labels", "few truths", "column", "negative", "float"],
)
def test_features_and_labels_that_do_not_fit_are_told(change: dict[str, object], told: str):
    good = {"bank": features(10), "of_bank": labels(10, 3), "queries": features(5, seed=1), "truth": labels(5, 3)}
    with pytest.raises(GrocoError, match=re.escape(told)) as caught:
        knn_classify(*(good | change).values(), (1,))
    assert caught.value.hint


def test_features_that_are_still_being_learnt_are_taken():
    bank, queries = features(30).requires_grad_(), features(20, seed=1).requires_grad_()
    of_bank, truth = labels(30, 4), labels(20, 4, seed=1)
    expected = knn_classify(features(30), of_bank, features(20, seed=1), truth, (1, 9))
    assert knn_classify(bank, of_bank.int(), queries, truth.short(), (1, 9)) == expected


@pytest.mark.parametrize(
    ("ks", "told"),
    [((1, 11), "--k 11 is more than the 10 images"), ((0, 1), "--k 0: at least one"), ((-3,), "--k -3"), ((), "--k 0")],
)
def test_a_number_of_neighbours_that_cannot_be_is_told(ks: tuple[int, ...], told: str):
    with pytest.raises(UsageError, match=told) as caught:
        knn_classify(features(10), labels(10, 3), features(5), labels(5, 3), ks)
    assert "--k" in caught.value.hint


@pytest.mark.parametrize("temperature", [0.0, -0.07, math.nan])
def test_a_temperature_that_is_not_positive_is_told(temperature: float):
    with pytest.raises(UsageError, match=f"--temperature {temperature} must be positive") as caught:
        knn_classify(features(10), labels(10, 3), features(5), labels(5, 3), (1,), temperature)
    assert "0.07" in caught.value.hint

"""The measure against the official one's results, a naive loop over the definition, and cases worked by hand."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groco_cli.errors import GrocoError
from groco_cli.evaluation.ground_truth import GroundTruth, QueryTruth
from groco_cli.evaluation.retrieval import RetrievalScore, evaluate_ranking, load_ground_truth, score_queries

RIGHT = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
IGNORED = {"easy": ("junk", "hard"), "medium": ("junk",), "hard": ("junk", "easy")}


def truth_of(images: int, *queries: dict[str, list[int]]) -> GroundTruth:
    return GroundTruth(
        imlist=tuple(f"image{i}" for i in range(images)),
        qimlist=tuple(f"query{i}" for i in range(len(queries))),
        gnd=tuple(
            QueryTruth(bbx=None, **{kind: tuple(query.get(kind, ())) for kind in ("easy", "hard", "junk")})
            for query in queries
        ),
    )


def naive(ranking: list[int], query: QueryTruth, setup: str, kappas: tuple[int, ...]):
    """AP and P@k of one ranking, read off the definition: take out what is ignored, then walk down the list."""
    right = {image for kind in RIGHT[setup] for image in getattr(query, kind)}
    ignored = {image for kind in IGNORED[setup] for image in getattr(query, kind)}
    if not right:
        return None
    hits = [image in right for image in ranking if image not in ignored]
    area, found = 0.0, 0
    for rank, hit in enumerate(hits):
        if hit:
            before = 1.0 if rank == 0 else found / rank
            found += 1
            area += (before + found / (rank + 1)) / 2 / len(right)
    last = max((rank + 1 for rank, hit in enumerate(hits) if hit), default=0)
    depths = [min(kappa, last) for kappa in kappas]
    return area, [sum(hits[:depth]) / depth if depth else 0.0 for depth in depths]


@pytest.mark.parametrize("hardness", ["random", "planted3", "planted8"])
@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_official_results_are_met(real_data, name: str, hardness: str):
    truth = load_ground_truth(real_data(f"retrieval/gnd_{name}.pkl"))
    golden = json.loads(real_data("retrieval/golden_map.json").read_text())[name][hardness]
    planted = {"random": 0, "planted3": 3, "planted8": 8}[hardness]
    similarities = np.random.default_rng(0).standard_normal((len(truth.imlist), 70))
    for i, query in enumerate(truth.gnd):
        similarities[list(query.easy), i] += planted
        similarities[list(query.hard), i] += planted / 2
        similarities[list(query.junk), i] += planted
    scores = evaluate_ranking(np.argsort(-similarities, axis=0, kind="stable"), truth)
    assert list(scores) == ["easy", "medium", "hard"]
    for letter, score in zip("EMH", scores.values(), strict=True):
        assert score.mean_ap == pytest.approx(golden[letter]["mAP"], abs=1e-9)
        assert score.mean_precision == pytest.approx(golden[letter]["mP@1,5,10"], abs=1e-9)
        assert score.num_queries == golden[letter]["n_valid"]


@st.composite
def rankings(draw):
    """A ground truth and a ranking for each of its queries, some cut short, some with distractors."""
    images, distractors, queries = draw(st.integers(1, 25)), draw(st.integers(0, 5)), draw(st.integers(1, 4))
    kinds = st.lists(st.sampled_from(["easy", "hard", "junk", "wrong"]), min_size=images, max_size=images)
    truth = truth_of(
        images,
        *(
            {kind: [i for i, k in enumerate(labels) if k == kind] for kind in ("easy", "hard", "junk")}
            for labels in draw(st.lists(kinds, min_size=queries, max_size=queries))
        ),
    )
    kept = draw(st.integers(0, images + distractors))
    columns = [draw(st.permutations(range(images + distractors)))[:kept] for _ in range(queries)]
    return truth, np.array(columns, dtype=np.int64).reshape(queries, kept).T


@settings(max_examples=300, deadline=None)
@given(rankings(), st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple))
def test_every_ranking_scores_as_a_naive_walk_down_the_list(drawn, kappas):
    truth, ranks = drawn
    scores, means = score_queries(ranks, truth, kappas), evaluate_ranking(ranks, truth, kappas)
    for setup in RIGHT:
        expected = [naive(list(column), query, setup, kappas) for column, query in zip(ranks.T, truth.gnd, strict=True)]
        for score, wanted in zip(scores[setup], expected, strict=True):
            assert (score is None) == (wanted is None)
            if wanted is not None:
                assert score.average_precision == pytest.approx(wanted[0], abs=1e-12)
                assert score.precision == pytest.approx(wanted[1], abs=1e-12)
        counted = [wanted for wanted in expected if wanted is not None]
        assert means[setup].num_queries == len(counted)
        if counted:
            assert means[setup].mean_ap == pytest.approx(np.mean([ap for ap, _ in counted]), abs=1e-12)
            assert means[setup].mean_precision == pytest.approx(np.mean([p for _, p in counted], axis=0), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(rankings())
def test_scores_lie_between_none_and_all(drawn):
    truth, ranks = drawn
    for score in evaluate_ranking(ranks, truth).values():
        if score.num_queries:
            assert all(0 <= share <= 1 for share in (score.mean_ap, *score.mean_precision))


def test_by_hand_one_right_image_in_second_place():
    truth = truth_of(4, {"easy": [2]})
    score = evaluate_ranking([[0], [2], [1], [3]], truth)["easy"]
    assert score.mean_ap == (0 / 1 + 1 / 2) / 2
    assert score.mean_precision == (0.0, 1 / 2, 1 / 2)  # at 5 and at 10 only the two up to the last right one count


def test_by_hand_a_perfect_ranking():
    truth = truth_of(6, {"easy": [4, 5], "hard": [1]})
    scores = evaluate_ranking([[5], [4], [1], [0], [2], [3]], truth)
    assert scores["medium"] == RetrievalScore(1.0, (1.0, 1.0, 1.0), 1)
    assert scores["easy"] == RetrievalScore(1.0, (1.0, 1.0, 1.0), 1)
    assert scores["hard"] == RetrievalScore(1.0, (1.0, 1.0, 1.0), 1)  # the easy ones in front of it are ignored


def test_by_hand_junk_above_a_right_image_moves_it_up():
    ranks = [[3], [0], [1], [2]]
    assert evaluate_ranking(ranks, truth_of(4, {"easy": [0], "junk": [3]}))["easy"].mean_ap == 1
    assert evaluate_ranking(ranks, truth_of(4, {"easy": [0]}))["easy"].mean_ap == 1 / 4
    assert evaluate_ranking(ranks, truth_of(4, {"easy": [0], "junk": [2]}))["easy"].mean_ap == 1 / 4


def test_by_hand_precision_at_k_with_fewer_than_k_above_the_last_right_one():
    truth = truth_of(8, {"easy": [0, 1]})
    ranks = np.array([[0, 2, 1, 3, 4, 5, 6, 7]]).T
    assert evaluate_ranking(ranks, truth, kappas=(1, 2, 5, 10))["easy"].mean_precision == (1.0, 1 / 2, 2 / 3, 2 / 3)


def test_queries_without_a_right_image_are_left_out_of_the_means():
    truth = truth_of(3, {"easy": [0]}, {"hard": [1]}, {"junk": [2]})
    scores = evaluate_ranking(np.array([[0, 1, 2]] * 3).T, truth)
    assert [scores[setup].num_queries for setup in ("easy", "medium", "hard")] == [1, 2, 1]
    assert scores["easy"].mean_ap == 1
    nobody = evaluate_ranking([[0], [1]], truth_of(2, {"junk": [0]}))["medium"]
    assert nobody.num_queries == 0
    assert math.isnan(nobody.mean_ap)
    assert all(map(math.isnan, nobody.mean_precision))


def test_distractors_are_wrong():
    truth = truth_of(2, {"easy": [0]})
    assert evaluate_ranking([[2], [0], [3], [1]], truth)["easy"].mean_ap == 1 / 4


def test_a_right_image_that_a_short_ranking_lacks_was_never_found():
    truth = truth_of(4, {"easy": [0, 1]})
    assert evaluate_ranking([[0], [2]], truth)["easy"].mean_ap == 1 / 2
    assert evaluate_ranking([[2], [3]], truth)["easy"] == RetrievalScore(0.0, (0.0, 0.0, 0.0), 1)


@pytest.mark.parametrize(
    "made",
    [
        np.int32,
        np.uint16,
        torch.tensor,
        lambda ranks: torch.tensor(ranks, dtype=torch.int32),
        lambda ranks: torch.tensor(ranks).T.contiguous().T,
    ],
)
def test_arrays_tensors_and_lists_are_taken(made):
    truth = truth_of(5, {"easy": [1], "hard": [4]}, {"easy": [0]})
    ranks = [[3, 0], [1, 1], [4, 2], [0, 3], [2, 4]]
    assert evaluate_ranking(made(ranks), truth) == evaluate_ranking(ranks, truth)


@pytest.mark.parametrize(
    ("ranks", "kappas", "said"),
    [
        ([[0, 1, 2]], (1,), "3 queries|2 queries"),
        ([0, 1, 2], (1,), r"shape \[3\]"),
        ([[0.0, 1.0], [1.0, 0.0]], (1,), "type float64"),
        ([[0, 1], [0, 0]], (1,), "query 0 names an image twice"),
        ([[0, 1], [1, -1]], (1,), "query 1 names an image twice, or a negative"),
        ([[0, 1], [1, 0]], (5, 0), "mP@0"),
    ],
)
def test_rankings_that_cannot_be_are_told(ranks, kappas, said: str):
    with pytest.raises(GrocoError, match=said):
        evaluate_ranking(ranks, truth_of(3, {"easy": [0]}, {"easy": [1]}), kappas)

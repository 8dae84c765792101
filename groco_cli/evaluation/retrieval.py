"""How well right images are ranked: mAP and mP@k of the revisited Oxford and Paris sets (Radenović et al., 2018).

There are three setups. An image that a setup ignores is neither right nor wrong: it is taken out of the ranking, and
those behind it move up.

              right          ignored
    easy      easy           junk, hard
    medium    easy, hard     junk
    hard      hard           junk, easy

With the rank rⱼ, from 0, of the j-th right image in what remains, and n right images in all,

    AP = 1/n Σⱼ (p₀ + p₁)/2,   p₀ = j/rⱼ (1 for rⱼ = 0),   p₁ = (j+1)/(rⱼ+1):

the area under the precision-recall curve by trapezoids. P@k is the share of right images among the first k, or down to
the last right one where that comes sooner. Queries without a right image are left out of the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from groco_cli.errors import GrocoError
from groco_cli.evaluation.ground_truth import GroundTruth, QueryTruth, load_ground_truth

__all__ = [
    "KAPPAS",
    "SETUPS",
    "QueryScore",
    "RetrievalScore",
    "evaluate_ranking",
    "load_ground_truth",
    "mean_scores",
    "score_queries",
]

KAPPAS = (1, 5, 10)
# Which lists of the ground truth each setup takes for right, and which it ignores.
SETUPS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RetrievalScore:
    """How well the queries of a set were answered, under one setup.

    Args:
        mean_ap: mAP, in [0, 1]; NaN where no query has a right image.
        mean_precision: mP@k for each k asked for, in their order.
        num_queries: Queries with a right image: what the means are over.
    """

    mean_ap: float
    mean_precision: tuple[float, ...]
    num_queries: int


@dataclass(frozen=True)
class QueryScore:
    """How well one query was answered, under one setup.

    Args:
        average_precision: AP, in [0, 1].
        precision: P@k for each k asked for, in their order.
    """

    average_precision: float
    precision: tuple[float, ...]


def evaluate_ranking(
    ranks: npt.ArrayLike | Tensor, ground_truth: GroundTruth, kappas: Sequence[int] = KAPPAS
) -> dict[str, RetrievalScore]:
    """Score the rankings of all queries under the three setups.

    Args:
        ranks: Image numbers, best first, [database, queries], as `argsort(-similarities, axis=0)` gives them: the
            column of a query is its ranking. Numbers beyond `imlist` are distractors, always wrong. A ranking that
            is cut off short counts right images that it lacks as never found.
        ground_truth: The right answers.
        kappas: Each k of mP@k.

    Returns:
        Scores for "easy", "medium" and "hard".

    Raises:
        GrocoError: If the rankings are not of these queries, or a k is below 1.

    Example:
        >>> truth = QueryTruth(bbx=None, easy=(0,), hard=(2,), junk=())
        >>> ground_truth = GroundTruth(imlist=("a", "b", "c"), qimlist=("q",), gnd=(truth,))
        >>> evaluate_ranking([[0], [1], [2]], ground_truth)["medium"].mean_ap  # (1 + 1)/2 and (1/2 + 2/3)/2, halved
        0.7916666666666666
    """
    return mean_scores(score_queries(ranks, ground_truth, kappas), kappas)


def score_queries(
    ranks: npt.ArrayLike | Tensor, ground_truth: GroundTruth, kappas: Sequence[int] = KAPPAS
) -> dict[str, list[QueryScore | None]]:
    """As `evaluate_ranking`, but a score for each query, None where it has no right image."""
    if min(kappas, default=1) < 1:
        raise GrocoError(f"mP@{min(kappas)}: at least one image must be looked at", "give k of 1 or more")
    rankings = _checked(ranks, len(ground_truth.gnd))
    scores: dict[str, list[QueryScore | None]] = {setup: [] for setup in SETUPS}
    for number, truth in enumerate(ground_truth.gnd):
        places = _places(rankings[:, number], len(ground_truth.imlist), number)
        for setup, (right, ignored) in SETUPS.items():
            scores[setup].append(_score(_of(truth, right), _of(truth, ignored), places, kappas))
    return scores


def mean_scores(
    scores: dict[str, list[QueryScore | None]], kappas: Sequence[int] = KAPPAS
) -> dict[str, RetrievalScore]:
    """The means over the queries that have a right image."""
    means = {}
    for setup, of_queries in scores.items():
        counted = [score for score in of_queries if score is not None]
        if counted:
            mean_ap = float(np.mean([score.average_precision for score in counted]))
            precision = np.mean([score.precision for score in counted], axis=0)
            means[setup] = RetrievalScore(mean_ap, tuple(precision.tolist()), len(counted))
        else:
            means[setup] = RetrievalScore(np.nan, (np.nan,) * len(kappas), 0)
    return means


def _checked(ranks: npt.ArrayLike | Tensor, queries: int) -> Places:
    array = ranks.numpy(force=True) if isinstance(ranks, Tensor) else np.asarray(ranks)
    if array.ndim != 2 or array.shape[1] != queries or not np.issubdtype(array.dtype, np.integer):
        raise GrocoError(
            f"rankings of shape {list(array.shape)} and type {array.dtype} for {queries} queries",
            "give whole numbers [database, queries], as argsort(-similarities, axis=0) does",
        )
    return array


def _of(truth: QueryTruth, kinds: Sequence[str]) -> Places:
    return np.array([image for kind in kinds for image in getattr(truth, kind)], dtype=np.int64)


def _places(ranking: Places, images: int, query: int) -> Places:
    """Where in a ranking each image of the database stands, from 0; -1 for nowhere."""
    (of_database,) = np.nonzero(ranking < images)
    named = ranking[of_database]
    if (named < 0).any() or len(np.unique(named)) < len(named):
        raise GrocoError(f"the ranking of query {query} names an image twice, or a negative number")
    places = np.full(images, -1)
    places[named] = of_database
    return places


def _score(right: Places, ignored: Places, places: Places, kappas: Sequence[int]) -> QueryScore | None:
    if not len(right):
        return None
    found = np.sort(places[right])
    found = found[found >= 0]
    if not len(found):
        return QueryScore(0.0, (0.0,) * len(kappas))
    ranks = found - np.searchsorted(np.sort(places[ignored][places[ignored] >= 0]), found)
    better = np.arange(len(ranks))  # right images ranked before
    before = np.where(ranks == 0, 1.0, better / np.maximum(ranks, 1))
    after = (better + 1) / (ranks + 1)
    depths = [min(kappa, int(ranks[-1]) + 1) for kappa in kappas]
    return QueryScore(
        float((before + after).sum() / (2 * len(right))),
        tuple(int((ranks < depth).sum()) / depth for depth in depths),
    )

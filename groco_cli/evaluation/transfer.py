"""Transfer: the features of one encoder tried by k-NN on other sets than it was trained on (section 4.3, Table 3).

The paper does not print its measures, so two are given for each set: top-1, and the mean of the classes' top-1. For
VOC2007, whose pictures show several classes, the hit rate stands in for the first and the 11-point mAP for the second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groco_cli.data.sources import Source
from groco_cli.data.sources.transfer import Failed, Missing, ObjectSource, TransferSet
from groco_cli.errors import GrocoError
from groco_cli.evaluation.feature_cache import plain_features
from groco_cli.evaluation.knn import check_votes, predict
from groco_cli.evaluation.multilabel import log_votes, score_votes
from groco_cli.evaluation.neighbours import Neighbours, find_together
from groco_cli.models import Encoder


@dataclass(frozen=True, kw_only=True)
class TransferScore:
    """How well the pictures of a set were classified.

    Args:
        top1: Share of test images whose first-ranked class is theirs, or one of theirs, in [0, 1].
        mean_per_class: Mean of the classes' shares; where images have several classes, their 11-point mAP.
        multi_label: Whether images have several classes.
        bank: Number of training images.
        queries: Number of test images.
        absent: Classes that no test image shows, which do not count in the mean.
        backend: What searched.
        remark: In what the numbers of images differ from the published ones; empty where they do not.
    """

    top1: float
    mean_per_class: float
    multi_label: bool
    bank: int
    queries: int
    absent: tuple[str, ...]
    backend: str
    remark: str


Outcome = TransferScore | Failed | Missing
Results = Mapping[str, Mapping[str, Outcome]]
"""Outcomes by encoder and set, every encoder's for the same sets."""


Classifier = Callable[[TransferSet, Tensor, Tensor], TransferScore]
"""Scores a set by the features of its training and test images, [n, D] and [q, D]."""


def evaluate_classifiers(
    encoder: Encoder,
    sets: Sequence[TransferSet | Failed | Missing],
    classifiers: Mapping[str, Classifier],
    *,
    device: torch.device,
    workers: int,
    cache: Path | None = None,
    cache_dtype: str = "fp32",
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, dict[str, Outcome]]:
    """Extract the features of each set once, and score each classifier on them; a failure does not end the others.

    Args:
        encoder: Gives the features.
        sets: As they were opened (`open_transfer_set`).
        classifiers: By name.
        device: Where features are computed.
        workers: Processes that decode.
        cache: Where features are kept; None to keep them in memory alone.
        cache_dtype: What they are kept in: "fp32" or "fp16".
        tell: Called with a line on what the cache had already.
        advance: Called with the number of images done, batch by batch.

    Returns:
        By classifier, an outcome for each set, by name, in their order.
    """

    def features(part: str, source: Source) -> Tensor:
        return plain_features(
            encoder,
            source,
            cache=cache,
            dtype=cache_dtype,
            device=device,
            workers=workers,
            found=lambda path: tell(f"{part}: from the cache {path}"),
            advance=advance,
        )

    def outcomes(data: TransferSet | Failed | Missing) -> dict[str, Outcome]:
        if not isinstance(data, TransferSet):
            return dict.fromkeys(classifiers, data)
        try:
            train, test = features(f"{data.name} train", data.train), features(f"{data.name} test", data.test)
        except GrocoError as error:
            return dict.fromkeys(classifiers, Failed(name=data.name, error=error))
        return {name: _outcome(classifier, data, train, test) for name, classifier in classifiers.items()}

    by_set = {data.name: outcomes(data) for data in sets}
    return {name: {data: of_set[name] for data, of_set in by_set.items()} for name in classifiers}


def _outcome(classifier: Classifier, data: TransferSet, train: Tensor, test: Tensor) -> Outcome:
    try:
        return classifier(data, train, test)
    except GrocoError as error:
        return Failed(name=data.name, error=error)


def nearest(k: int, temperature: float, device: torch.device) -> Classifier:
    """Classify by the k nearest training images.

    Args:
        k: Number of neighbours.
        temperature: T of the votes' weights.
        device: Where neighbours are searched.
    """

    def score(data: TransferSet, train: Tensor, test: Tensor) -> TransferScore:
        check_votes([k], temperature, len(data.train))
        return score_set(data, find_together(train, test, k, device=device), k=k, temperature=temperature)

    return score


def score_set(data: TransferSet, neighbours: Neighbours, *, k: int, temperature: float) -> TransferScore:
    """Score the neighbours found in one set.

    Args:
        data: The set.
        neighbours: At least k of each test image, among the training images.
        k: Number of neighbours.
        temperature: T of the votes' weights.

    Raises:
        GrocoError: If no test image has a label.
    """
    train, backend = data.train, neighbours.backend
    if isinstance(train, ObjectSource):
        votes = log_votes(neighbours, train.shown, k=k, temperature=temperature)
        return score_ranking(data, votes, backend=backend)
    assert train.labels is not None
    return score_classes(data, predict(neighbours, train.labels, k=k, temperature=temperature), backend=backend)


def score_classes(data: TransferSet, predicted: Tensor, *, backend: str) -> TransferScore:
    """Score the classes that test images were given, each having one.

    Args:
        data: The set.
        predicted: int64 [q].
        backend: What found them.
    """
    labels = data.test.labels
    assert labels is not None
    right = predicted == labels
    mean, absent = mean_per_class(right, labels, len(data.test.classes))
    return _score(data, float(right.double().mean()), mean, absent, backend)


def score_ranking(data: TransferSet, scores: Tensor, *, backend: str) -> TransferScore:
    """Score how test images that show several classes are ranked for each.

    Args:
        data: A set of `ObjectSource`.
        scores: [q, classes]; minus infinity where there is none.
        backend: What found them.

    Raises:
        GrocoError: If no test image has a label.
    """
    test = data.test
    assert isinstance(test, ObjectSource)
    if not test.shown.any():
        raise GrocoError(f"no test image of {data.name} plainly shows a class", "fetch it again")
    score = score_votes(scores, test.shown, test.difficult)
    return _score(data, score.hit_rate, score.mean_ap, score.absent, backend)


def _score(data: TransferSet, top1: float, mean: float, absent: Sequence[int], backend: str) -> TransferScore:
    return TransferScore(
        top1=top1,
        mean_per_class=mean,
        multi_label=isinstance(data.test, ObjectSource),
        bank=len(data.train),
        queries=len(data.test),
        absent=tuple(data.test.classes[label] for label in absent),
        backend=backend,
        remark=data.remark,
    )


def mean_per_class(right: Tensor, labels: Tensor, classes: int) -> tuple[float, tuple[int, ...]]:
    """The mean over classes of the share of their images that were classified rightly.

    Args:
        right: Whether each image was, bool [q].
        labels: Their classes, int64 [q].
        classes: Number of classes.

    Returns:
        The mean over the classes that have images, in [0, 1], and the classes that have none.
    """
    counts = labels.bincount(minlength=classes)
    correct = labels[right].bincount(minlength=classes)
    there = counts > 0
    mean = float((correct[there].double() / counts[there]).mean())
    return mean, tuple((~there).nonzero()[:, 0].tolist())


def common_scores(results: Results) -> dict[str, dict[str, TransferScore]]:
    """Scores by encoder and set, of those sets that every encoder was measured on.

    An average over others would not compare.
    """
    measured = [
        {name for name, one in outcomes.items() if isinstance(one, TransferScore)} for outcomes in results.values()
    ]
    common = set.intersection(*measured)
    return {
        encoder: {name: one for name, one in outcomes.items() if name in common and isinstance(one, TransferScore)}
        for encoder, outcomes in results.items()
    }


def average(scores: Mapping[str, TransferScore]) -> tuple[float, float]:
    """Top-1 and mean per class, each as the mean over some sets, at least one."""
    count = len(scores)
    return sum(one.top1 for one in scores.values()) / count, sum(one.mean_per_class for one in scores.values()) / count

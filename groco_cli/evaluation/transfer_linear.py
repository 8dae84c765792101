"""Transfer by linear evaluation: logistic regression on frozen features of un-augmented pictures.

As is usual (Kornblith et al., 2019, "Do better ImageNet models transfer better?"): multinomial, by L-BFGS, its penalty
chosen on the validation split, then fitted anew on training and validation pictures together. They try 45 penalties
between 1e-6 and 1e5, we 12. VOC2007, whose pictures show several classes, has a regression for each class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.data.sources.transfer import ObjectSource, TransferSet
from groco_cli.errors import GrocoError
from groco_cli.evaluation.logistic import LinearClassifier, fit_path
from groco_cli.evaluation.multilabel import score_votes
from groco_cli.evaluation.transfer import Classifier, Results, TransferScore, score_classes, score_ranking

PENALTIES = tuple(10.0**power for power in range(5, -7, -1))
PROTOCOL = (
    f"linear: logistic regression by L-BFGS on un-augmented features, λ the best of {len(PENALTIES)} between "
    f"{PENALTIES[-1]:g} and {PENALTIES[0]:g} (Kornblith et al.: of 45), then fitted on all training images"
)
_BACKEND = "L-BFGS, torch"
_HELD_OUT = 5  # of so many training images one is held out where a set has no validation split
_SEED = 0  # of which


@dataclass(frozen=True, kw_only=True)
class LinearTransferScore(TransferScore):
    """How well a linear classifier did.

    Args:
        penalty: λ, of PENALTIES.
        chosen_on: What it was chosen on, for people.
    """

    penalty: float
    chosen_on: str


def linear_classifier(device: torch.device) -> Classifier:
    """What `evaluate_classifiers` is to do with the features of a set.

    Args:
        device: Where to fit.
    """

    def score(data: TransferSet, train: Tensor, test: Tensor) -> TransferScore:
        validation, chosen_on = _validation(data)
        penalty = _best_penalty(data, train, validation, device)
        path = PENALTIES[: PENALTIES.index(penalty) + 1]
        *_, fitted = _fits(data, train, torch.arange(len(train)), path, device)
        logits = fitted.logits(test)
        if isinstance(data.test, ObjectSource):
            figures = score_ranking(data, logits, backend=_BACKEND)
        else:
            figures = score_classes(data, logits.argmax(dim=1), backend=_BACKEND)
        return LinearTransferScore(**vars(figures), penalty=penalty, chosen_on=chosen_on)

    return score


def linear_notes(results: Results) -> list[str]:
    """Which penalty was chosen on what, a line each."""
    return [
        f"{name}, {encoder}: λ = {one.penalty:g}, chosen on {one.chosen_on}"
        for encoder, outcomes in results.items()
        for name, one in outcomes.items()
        if isinstance(one, LinearTransferScore)
    ]


def _validation(data: TransferSet) -> tuple[Tensor, str]:
    """The rows of training images that penalties are compared on, and what they are."""
    if data.validation is not None:
        return data.validation, f"its validation split ({len(data.validation):,} images)"
    images = len(data.train)
    if images < 2:
        raise GrocoError(f"{data.name} has {images} training image", "a linear classifier needs two or more")
    held_out = max(1, images // _HELD_OUT)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(_SEED))
    return order[:held_out].sort().values, f"{held_out:,} of its {images:,} training images, drawn with seed {_SEED}"


def _best_penalty(data: TransferSet, features: Tensor, validation: Tensor, device: torch.device) -> float:
    """The penalty that does best on the validation rows; of equals the strongest."""
    others = torch.ones(len(features), dtype=torch.bool).index_fill_(0, validation, value=False)
    fits = _fits(data, features, others.nonzero()[:, 0], PENALTIES, device)
    scores = [_on_validation(data, validation, fit.logits(features[validation])) for fit in fits]
    return PENALTIES[scores.index(max(scores))]


def _on_validation(data: TransferSet, rows: Tensor, logits: Tensor) -> float:
    """Top-1; the mean AP where pictures show several classes."""
    train = data.train
    if isinstance(train, ObjectSource):
        if not train.shown[rows].any():
            raise GrocoError(f"no validation image of {data.name} plainly shows a class", "fetch it again")
        return score_votes(logits, train.shown[rows], train.difficult[rows]).mean_ap
    assert train.labels is not None
    return float((logits.argmax(dim=1) == train.labels[rows]).double().mean())


def _fits(
    data: TransferSet, features: Tensor, rows: Tensor, penalties: Sequence[float], device: torch.device
) -> Iterator[LinearClassifier]:
    """A classifier for each penalty, fitted to some of the training images."""
    train = data.train
    if isinstance(train, ObjectSource):
        shown = train.shown[rows].to(device)
        plain = ~train.difficult[rows].to(device)  # a class in difficult objects alone is neither shown nor absent

        def loss(logits: Tensor) -> Tensor:
            each = F.binary_cross_entropy_with_logits(logits, shown.to(logits), reduction="none")
            return (each * plain).sum()
    else:
        assert train.labels is not None
        labels = train.labels[rows].to(device)

        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, reduction="sum")

    return fit_path(features[rows], loss, len(train.classes), penalties, device=device)

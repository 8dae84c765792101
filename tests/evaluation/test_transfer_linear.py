"""Linear transfer: which images choose the penalty, scikit-learn's choice of it, and pictures of several classes."""

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from groco_cli.data.sources import MemorySource
from groco_cli.data.sources.transfer import Failed, Missing, ObjectSource, TransferSet
from groco_cli.errors import GrocoError
from groco_cli.evaluation.multilabel import average_precision
from groco_cli.evaluation.protocol import pixels
from groco_cli.evaluation.transfer import evaluate_classifiers, nearest
from groco_cli.evaluation.transfer_linear import PENALTIES, linear_classifier, linear_notes
from groco_cli.models import EncoderMetadata

CPU = torch.device("cpu")


def clouds(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of three classes that overlap, [count, 6], and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    return torch.randn(count, 6, generator=generator) + 1.5 * torch.eye(3, 6)[labels], labels


def source(labels: Tensor) -> MemorySource:
    return MemorySource(torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8), labels, ("a", "b", "c"))


@pytest.mark.parametrize("split", [True, False])
def test_the_penalty_is_that_which_scikit_learn_finds_best_on_the_images_held_out(split: bool):
    (train, labels), (test, truth) = clouds(60, 0), clouds(200, 1)
    rows = torch.arange(40, 60) if split else torch.randperm(60, generator=torch.Generator().manual_seed(0))[:12]
    data = TransferSet(
        name="set", train=source(labels), test=source(truth), remark="", validation=rows if split else None
    )
    score = linear_classifier(CPU)(data, train, test)

    def accuracy(fit: Tensor, on: Tensor, wanted: Tensor, fit_labels: Tensor, penalty: float) -> float:
        model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-8)
        return float(model.fit(fit.double().numpy(), fit_labels.numpy()).score(on.double().numpy(), wanted.numpy()))

    others = torch.ones(60, dtype=torch.bool).index_fill_(0, rows, value=False)
    # The weakest penalties have no effect that rounding leaves, and cannot be told from each other.
    tried = [accuracy(train[others], train[rows], labels[rows], labels[others], penalty) for penalty in PENALTIES]
    assert score.penalty == PENALTIES[tried.index(max(tried))]
    assert len(set(tried)) > 1
    assert score.top1 == pytest.approx(accuracy(train, test, truth, labels, score.penalty))
    assert 0.5 < score.top1 < 0.95
    assert (score.bank, score.queries, score.multi_label) == (60, 200, False)
    said = "its validation split (20 images)" if split else "12 of its 60 training images, drawn with seed 0"
    assert score.chosen_on == said


def test_a_class_in_difficult_objects_alone_is_learnt_neither_way():
    (train, labels), (test, truth) = clouds(90, 0), clouds(60, 1)

    def objects(labels: Tensor) -> ObjectSource:
        """Pictures of c show a difficult b."""
        paths = tuple(Path(f"{number}.jpg") for number in range(len(labels)))
        return ObjectSource(paths, None, ("b",), (labels == 1)[:, None], (labels == 2)[:, None])

    data = TransferSet(name="voc", train=objects(labels), test=objects(truth), remark="")
    score = linear_classifier(CPU)(data, train, test)
    plain = labels != 2
    model = LogisticRegression(C=1 / score.penalty, solver="newton-cholesky", tol=1e-8)
    model.fit(train[plain].double().numpy(), (labels[plain] == 1).numpy())
    ranked = torch.tensor(model.decision_function(test.double().numpy()))
    assert score.multi_label
    assert score.mean_per_class == pytest.approx(average_precision(ranked, truth == 1, truth == 2))
    assert 0.6 < score.mean_per_class < 1


def test_both_classifiers_share_one_extraction_and_fail_apart(noise):
    data = TransferSet(name="noisy", train=noise(20), test=noise(12, seed=1), remark="")
    small = EncoderMetadata(arch="test_resnet", image_size=32, resize=32)
    classifiers = {"k-NN": nearest(21, 0.07, CPU), "linear": linear_classifier(CPU)}
    counted: list[int] = []
    absent = Missing(name="absent", wanted=(Path("nowhere"),))
    broken = Failed(name="broken", error=GrocoError("cannot be read"))
    found = evaluate_classifiers(
        pixels(small), [data, absent, broken], classifiers, device=CPU, workers=0, advance=counted.append
    )
    assert sum(counted) == 32
    assert isinstance(found["k-NN"]["noisy"], Failed)
    assert found["linear"]["noisy"].queries == 12
    for outcomes in found.values():
        assert outcomes["absent"] is absent
        assert outcomes["broken"] is broken
    (said,) = linear_notes(found)
    assert said.startswith("noisy, linear: λ = ")
    assert said.endswith("chosen on 4 of its 20 training images, drawn with seed 0")


def test_a_single_training_image_is_a_mistake_in_a_line():
    data = TransferSet(name="tiny", train=source(torch.tensor([0])), test=source(torch.tensor([0])), remark="")
    with pytest.raises(GrocoError, match="tiny has 1 training image"):
        linear_classifier(CPU)(data, torch.ones(1, 2), torch.ones(1, 2))

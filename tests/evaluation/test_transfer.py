"""Transfer of one encoder: measures against naive loops, failing and missing sets, and averages that compare."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from groco_cli.data.sources import FileSource, first, open_dataset
from groco_cli.data.sources.transfer import Failed, Missing, ObjectSource, TransferSet
from groco_cli.errors import GrocoError
from groco_cli.evaluation.knn import score_neighbours
from groco_cli.evaluation.neighbours import find_neighbours
from groco_cli.evaluation.protocol import pixels
from groco_cli.evaluation.transfer import (
    Outcome,
    TransferScore,
    average,
    common_scores,
    evaluate_classifiers,
    mean_per_class,
    nearest,
    score_set,
)
from groco_cli.models import EncoderMetadata

SMALL = EncoderMetadata(arch="test_resnet", image_size=32, resize=32, method="groco", epoch=9)
CPU = torch.device("cpu")


def evaluated(*sets: TransferSet | Failed | Missing, k: int = 5, **options: object) -> dict[str, Outcome]:
    classifiers = {"k-NN": nearest(k, 0.07, CPU)}
    return evaluate_classifiers(pixels(SMALL), sets, classifiers, device=CPU, workers=0, **options)["k-NN"]


@pytest.fixture
def noisy(noise) -> TransferSet:
    return TransferSet(name="noisy", train=noise(20), test=noise(12, seed=1), remark="partial copy")


def test_a_set_is_scored_as_by_groco_knn_and_by_a_naive_mean_per_class(noisy):
    counted: list[int] = []
    score = evaluated(noisy, advance=counted.append)["noisy"]
    assert isinstance(score, TransferScore)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (SMALL.mean, SMALL.std))
    bank, queries = (((s.images / 255 - mean) / std).flatten(1) for s in (noisy.train, noisy.test))
    neighbours = find_neighbours(bank, queries, 5, device=CPU)
    knn = score_neighbours(neighbours, noisy.train.labels, noisy.test.labels, ks=(5,), temperature=0.07)[5]
    assert (score.top1, score.queries, score.bank) == (knn.top1, 12, 20)
    assert (score.multi_label, score.absent, score.remark) == (False, (), "partial copy")
    assert score.mean_per_class == pytest.approx(score.top1)  # four test images a class
    assert sum(counted) == 32


def test_mean_per_class_is_scikit_learns_balanced_accuracy():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (200,), generator=generator) ** 2  # 0, 1, 4, 9
    predicted = torch.where(torch.rand(200, generator=generator) < 0.6, labels, torch.ones_like(labels))
    mean, absent = mean_per_class(predicted == labels, labels, 11)
    assert mean == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert absent == (2, 3, 5, 6, 7, 8, 10)


def test_rare_classes_weigh_as_much_as_frequent_ones():
    mean, absent = mean_per_class(torch.tensor([True, True, True, False]), torch.tensor([0, 0, 0, 1]), 2)
    assert (mean, absent) == (0.5, ())


def test_classes_without_a_test_image_are_named(noisy):
    few = replace(noisy, test=noisy.test.subset(torch.tensor([0, 3, 2])))
    score = evaluated(few)["noisy"]
    assert score.absent == ("b",)


def test_neighbours_vote_for_every_class_that_they_show(noisy):
    def objects(shown: list[list[int]], difficult: list[list[int]]) -> ObjectSource:
        tables = (torch.tensor(table, dtype=torch.bool) for table in (shown, difficult))
        return ObjectSource(tuple(Path(f"{i}.jpg") for i in range(len(shown))), None, ("cat", "dog", "bus"), *tables)

    # The difficult bus of the second picture does not vote.
    train = objects([[1, 1, 0], [0, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 0]])
    test = objects([[0, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]])
    neighbours = find_neighbours(
        torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.1, 1.0]]), 2, device=CPU
    )
    assert neighbours.rows.tolist() == [[0, 1], [2, 1]]
    score = score_set(TransferSet(name="voc", train=train, test=test, remark=""), neighbours, k=2, temperature=1.0)
    # Query 0 has dog twice, query 1 cat nearer than dog: two hits. Dog: query 1, which shows one in a difficult object,
    # is left out, so AP is 1. Cat: query 0, at cosine 1, comes before query 1, which shows one: AP is 1/2.
    assert (score.top1, score.multi_label, score.absent) == (1.0, True, ("bus",))
    assert score.mean_per_class == 0.75
    with pytest.raises(GrocoError, match="no test image of voc"):
        score_set(
            TransferSet(name="voc", train=train, test=replace(test, shown=test.shown & False), remark=""),
            neighbours,
            k=2,
            temperature=1.0,
        )


def test_a_set_that_fails_leaves_the_others_alone(noisy):
    unreadable = Failed(name="bad", error=GrocoError("bad: cannot be read"))
    absent = Missing(name="absent", wanted=(Path("nowhere"),))
    few = replace(noisy, name="few", train=noisy.train.subset(torch.arange(3)))
    outcomes = evaluated(unreadable, few, absent, noisy)
    assert list(outcomes) == ["bad", "few", "absent", "noisy"]
    assert outcomes["bad"] is unreadable
    assert outcomes["absent"] is absent
    assert isinstance(outcomes["few"], Failed)
    assert "--k 5 is more than the 3 images" in outcomes["few"].error.message
    assert outcomes["noisy"] == evaluated(noisy)["noisy"]


def test_a_damaged_picture_fails_its_set_by_name(noisy, picture_folder):
    folder = picture_folder("a/0.png", "b/1.png", "a/2.png")
    (folder / "b/1.png").write_bytes(b"no picture")
    paths = tuple(folder / name for name in ("a/0.png", "b/1.png", "a/2.png"))
    files = FileSource(paths, torch.tensor([0, 1, 0]), ("a", "b"))
    outcome = evaluated(TransferSet(name="files", train=files, test=files, remark=""), k=1)["files"]
    assert isinstance(outcome, Failed)
    assert "1.png" in outcome.error.message


def test_a_second_evaluation_extracts_nothing_and_scores_the_same(noisy, picture_folder, tmp_path):
    folder = picture_folder("0.png", "1.png", "2.png")
    paths = tuple(folder / f"{number}.png" for number in range(3))
    files = FileSource(paths, torch.tensor([0, 1, 0]), ("a", "b"))
    paths[2].write_bytes(b"no picture")
    damaged = TransferSet(name="files", train=noisy.train, test=files, remark="")
    encoder, shown = pixels(SMALL), []
    encoder.register_forward_hook(lambda module, images, output: shown.append(len(output)))

    def outcomes(cache: Path | None, tell=lambda line: None) -> dict[str, Outcome]:
        shown.clear()
        classifiers = {"k-NN": nearest(5, 0.07, CPU)}
        return evaluate_classifiers(
            encoder, [noisy, damaged], classifiers, device=CPU, workers=0, cache=cache, tell=tell
        )["k-NN"]

    without = outcomes(None)
    told: list[str] = []
    for images, lines in ((32, 1), (0, 4)):  # the damaged set's training images are the other's
        found = outcomes(tmp_path / "cache", told.append)
        assert (sum(shown), len(told)) == (images, lines)
        assert found["noisy"] == without["noisy"]
        assert isinstance(found["files"], Failed)
        assert "2.png" in found["files"].error.message
    assert told[1].startswith("noisy train: from the cache ")
    assert len(list((tmp_path / "cache").iterdir())) == 2, "nothing is kept of the pictures that failed"


def scored(top1: float, mean: float) -> TransferScore:
    return TransferScore(
        top1=top1,
        mean_per_class=mean,
        multi_label=False,
        bank=9,
        queries=9,
        absent=(),
        backend="by hand",
        remark="",
    )


def test_the_average_is_over_sets_that_every_encoder_was_measured_on():
    failed, missing = Failed(name="dtd", error=GrocoError("x")), Missing(name="cars", wanted=())
    results = {
        "one": {"pets": scored(0.5, 0.25), "dtd": scored(1.0, 1.0), "cars": missing, "food": scored(0.7, 0.75)},
        "two": {"pets": scored(0.1, 0.2), "dtd": failed, "cars": missing, "food": scored(0.3, 0.4)},
    }
    common = common_scores(results)
    assert [list(scores) for scores in common.values()] == [["pets", "food"]] * 2
    assert average(common["one"]) == pytest.approx((0.6, 0.5))
    assert average(common["two"]) == pytest.approx((0.2, 0.3))
    assert common_scores({"one": {"dtd": failed, "cars": missing}}) == {"one": {}}


def test_real_digits_are_told_apart(tmp_path):
    digits = open_dataset("digits", tmp_path)
    score = evaluated(TransferSet(name="digits", train=first(digits.train, 800), test=digits.test, remark=""), k=20)
    assert 0.3 < score["digits"].mean_per_class < 0.9

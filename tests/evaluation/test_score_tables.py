"""Tables of k-NN, linear probes and retrieval: what stands in which row, the paper's beside what was measured."""

import math
from pathlib import Path

import torch

from groco_cli.data.sources import Dataset
from groco_cli.evaluation import knn_table, linear_table, retrieval_table
from groco_cli.evaluation.comparison import Compared
from groco_cli.evaluation.extraction import Extraction
from groco_cli.evaluation.knn import KNNScore
from groco_cli.evaluation.linear import LinearScore
from groco_cli.evaluation.linear_protocol import ProbeSettings
from groco_cli.evaluation.neighbours import Neighbours
from groco_cli.evaluation.paper import ROWS
from groco_cli.evaluation.protocol import KNNResult, pixels
from groco_cli.evaluation.retrieval import RetrievalScore
from groco_cli.evaluation.retrieval_protocol import named_protocol
from groco_cli.evaluation.retrieval_search import RetrievalResult
from groco_cli.models import Encoder, EncoderMetadata
from groco_cli.tables import Report, percent, printed


def knn_result(top1: float, queries: int = 40, backend: str = "by hand", recall: float | None = None) -> KNNResult:
    scores = {k: KNNScore(top1, 1.0, round(top1 * queries), queries) for k in (10, 20)}
    none = Neighbours(torch.empty(0, 1), torch.empty(0, 1, dtype=torch.int64), backend, recall)
    return KNNResult(scores=scores, bank=50, queries=queries, protocol="train/test", backend=backend, neighbours=none)


def knn_report(results: dict[str, KNNResult], **baselines: KNNResult) -> Report:
    """Of encoders that were scored so."""
    encoder = Encoder(torch.nn.Flatten(), 12, EncoderMetadata(arch="pixels"))
    return knn_table.knn_report(
        [Compared(name=name, path=Path(name), encoder=encoder) for name in results],
        results,
        data="noise",
        protocol="train/test",
        temperature=0.07,
        features=Extraction(device=torch.device("cpu"), workers=0, cache=None, cache_dtype="fp32"),
        figures=[None] * len(results),
        baselines=baselines,
        paper=None,
    )


def test_each_encoder_says_what_searched_and_how_much_it_found():
    a, b, untrained = (knn_result(0.5, backend=f"ivf, {recall:.0%}", recall=recall) for recall in (0.9, 0.2, 0.3))
    report = knn_report({"a": a, "b": b}, untrained=untrained)
    said = [(one["backend"], one["recall"]) for one in report.record["encoders"]]
    assert said == [("ivf, 90%", 0.9), ("ivf, 20%", 0.2)]
    assert not {"backend", "recall"} & set(report.record)
    assert report.notes[1:] == ["untrained: search by ivf, 30%", "a: search by ivf, 90%", "b: search by ivf, 20%"]


def test_what_searched_for_all_is_said_once():
    report = knn_report({"a": knn_result(0.5), "b": knn_result(0.25)}, pixels=knn_result(0.1))
    (note,) = report.notes
    assert note.endswith("; search by by hand")
    alone = knn_report({"a": knn_result(0.5, recall=0.75)}).record
    assert (alone["backend"], alone["recall"]) == ("by hand", 0.75)


def test_encoders_and_the_paper_stand_together_for_each_k():
    table = knn_table.knn_table([("a", knn_result(0.25)), ("b", knn_result(0.5))], ROWS)
    ten, twenty = table.groups
    assert ten[:2] == [["a", 10, percent(0.25), percent(1), 10, 40], ["b", 10, percent(0.5), percent(1), 20, 40]]
    assert ["paper: GroCo, 2×224, 100 ep", 10, printed("60.3"), None, None, None] in ten
    assert ["paper: GroCo, 2×224, 400 ep", 20, printed("64.0"), None, None, None] in twenty
    assert not any("400 ep" in row[0] for row in ten)  # printed for k = 20 alone
    assert len(knn_table.knn_table([("a", knn_result(0.25))]).groups[0]) == 1


def test_it_is_said_in_what_a_measurement_differs_from_the_papers():
    first, images, votes = knn_table.paper_notes(knn_result(0.5), math.inf)
    assert "T 0.07" in first
    assert images == "not the paper's images: 40 queries here, bank of 50"
    assert votes == "not the paper's votes: unweighted here"
    assert len(knn_table.paper_notes(knn_result(0.5), 0.07)) == 2


def test_a_probe_has_a_row_for_each_learning_rate():
    scores = [LinearScore(learning_rate=lr, train_loss=2.0, top1=0.5, top5=0.75, correct=2, total=4) for lr in (0.1, 1)]
    (rows,) = linear_table.linear_table([("a", scores)], ROWS).groups
    assert [row[1].text for row in rows[:2]] == ["0.1", "1"]
    assert rows[0][3:] == [percent(0.5), percent(0.75), 2, 4]
    by_title = {row[0]: row[3:5] for row in rows[2:]}
    assert by_title["paper: BYOL†, 2×224, 400 ep"] == [printed("73.2"), None]
    assert by_title["paper: GroCo, 2×224, 100 ep"] == [printed("69.2"), printed("88.4")]
    assert "paper: SwAV, 2×224, 400 ep" not in by_title  # k-NN alone


def test_an_encoder_that_is_called_like_a_baseline_has_a_row_of_its_own(noise):
    def score(correct: int) -> list[LinearScore]:
        share = correct / 4
        return [LinearScore(learning_rate=0.1, train_loss=2.0, top1=share, top5=1.0, correct=correct, total=4)]

    encoder = pixels(EncoderMetadata(arch="resnet18", image_size=8, resize=8))
    report = linear_table.linear_report(
        [Compared(name="untrained", path=Path("untrained.safetensors"), encoder=encoder)],
        {"untrained": linear_table.Probed(scores=score(3), folder=Path("probe"), heads=[Path("head")])},
        data=Dataset("noise", noise(9), noise(4)),
        settings=ProbeSettings(),
        device=torch.device("cpu"),
        baselines={"untrained": score(1)},
        paper=None,
    )
    assert [(row[0], row[5]) for row in report.table.groups[0]] == [("untrained", 1), ("untrained", 3)]


def test_retrieval_has_the_papers_medium_and_hard():
    score = RetrievalScore(mean_ap=0.5, mean_precision=(1.0, math.nan, 0.25), num_queries=7)
    result = RetrievalResult(
        scores=dict.fromkeys(("easy", "medium", "hard"), score),
        queries={},
        first=torch.empty(0),
        similarities=None,
        backend="",
    )
    table = retrieval_table.score_table({"a": result}, retrieval_table.table_2("rparis6k"))
    easy, medium, hard = table.groups
    assert easy == [["a", "easy", percent(0.5), percent(1), None, percent(0.25), 7]]
    assert medium[-1][:3] == ["paper: GroCo, 400 epochs", "medium", printed("54.95")]
    assert hard[-1][:3] == ["paper: GroCo, 400 epochs", "hard", printed("26.26")]
    assert len(hard) == 6
    assert not retrieval_table.table_2("photos")


def test_another_protocol_than_the_papers_is_said():
    dino, revisitop = (named_protocol(name, "roxford5k") for name in ("dino", "revisitop"))
    assert len(retrieval_table.paper_notes(dino, dino, 0)) == 1
    for used, distractors in ((revisitop, 0), (dino, 5)):
        assert "not the paper's protocol here" in retrieval_table.paper_notes(used, used, distractors)

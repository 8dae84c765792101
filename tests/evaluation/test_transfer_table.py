"""What is shown of transfer: rows, averages, notes, failures, the paper's figures."""

from pathlib import Path

import pytest
import torch
from torch import nn

from groco_cli.data.sources.transfer import TRANSFER_SETS, Failed, Missing
from groco_cli.errors import GrocoError
from groco_cli.evaluation.comparison import Compared
from groco_cli.evaluation.extraction import Extraction
from groco_cli.evaluation.transfer import TransferScore
from groco_cli.evaluation.transfer_table import TABLE_3, csv_rows, failures, listed, notes, table_rows, transfer_report
from groco_cli.models import Encoder, EncoderMetadata


def scored(top1: float, mean: float, **more: object) -> TransferScore:
    plain = {"multi_label": False, "bank": 60, "queries": 30, "absent": (), "backend": "by hand", "remark": ""}
    return TransferScore(top1=top1, mean_per_class=mean, **(plain | more))


MISSING = Missing(name="cars", wanted=tuple(Path(f"stanford_cars/{i}") for i in range(5)))


def test_a_single_encoder_has_two_columns_and_an_average():
    columns, rows = table_rows(
        {"one": {"dtd": scored(0.5, 0.25), "cars": MISSING, "pets": scored(0.7, 0.65)}}, paper=False
    )
    assert columns == ["set", "top-1 %", "mean per class %"]
    assert rows == [
        ["dtd", "50.00", "25.00"],
        ["cars", "missing", ""],
        ["pets", "70.00", "65.00"],
        ["average of 2 of 11 sets", "60.00", "45.00"],
    ]


def test_encoders_stand_side_by_side_and_the_paper_beside_them_over_the_same_sets():
    failed = Failed(name="dtd", error=GrocoError("x"))
    results = {
        "a": {"dtd": scored(0.5, 0.25), "pets": scored(0.7, 0.65)},
        "b": {"dtd": failed, "pets": scored(0.1, 0.2)},
    }
    columns, rows = table_rows(results, paper=True)
    assert columns[1:5] == ["a top-1 %", "a mean per class %", "b top-1 %", "b mean per class %"]
    assert columns[5:] == list(TABLE_3)
    assert rows[0] == ["dtd", "50.00", "25.00", "failed", "", "68.7", "70.2", "69.3", "71.1", "71.0"]
    assert rows[2] == [
        "average of 1 of 11 sets",
        "70.00",
        "65.00",
        "10.00",
        "20.00",
        "67.20",
        "68.20",
        "72.50",
        "70.40",
        "80.60",
    ]


def test_without_any_score_there_is_no_average():
    _, rows = table_rows({"one": {"cars": MISSING}}, paper=True)
    assert len(rows) == 1


def test_table_3_averages_as_printed():
    printed = {"MoCo v2": 57.35, "SimCLR": 58.45, "SimSiam": 60.92, "SwAV": 61.41, "GroCo": 63.14}
    results = {"one": {name: scored(0.5, 0.5) for name in TRANSFER_SETS}}
    _, rows = table_rows(results, paper=True)
    assert rows[-1][0] == "average of 11 of 11 sets"
    for method, shown in zip(printed, rows[-1][3:], strict=True):
        assert float(shown) == pytest.approx(printed[method], abs=0.0051)


def test_table_3_is_the_papers():
    text = Path(__file__).parents[3] / "shared/paper/groco-iccv2023.txt"
    if not text.exists():
        pytest.skip(f"no {text}")
    lines = text.read_text(encoding="utf-8").splitlines()
    for method, figures in TABLE_3.items():
        row = " ".join(str(figure) for figure in figures.values())
        assert any(line.startswith(method) and f" {row} " in line for line in lines), method


def test_all_that_has_to_be_known_is_noted():
    results = {
        "one": {
            "dtd": scored(0.5, 0.25, remark="partial copy: 4 of 3,760 training images"),
            "cars": MISSING,
            "voc2007": scored(0.5, 0.5, multi_label=True, absent=("bus",)),
        }
    }
    assert notes(results, paper=False) == [
        "dtd: partial copy: 4 of 3,760 training images",
        "cars is missing: there is no stanford_cars/0, stanford_cars/1, stanford_cars/2 and 2 more",
        "voc2007: top-1 is the hit rate, mean per class the 11-point mAP",
        "voc2007: without a test image, not counted: bus",
    ]
    (first, *others) = notes(results, paper=True)
    assert "Table 3" in first
    assert others == notes(results, paper=False)
    assert listed(MISSING, most=9).count("stanford_cars") == 5


def test_what_went_wrong_is_told_once_where_it_is_the_same():
    def failed(reason: str) -> Failed:
        return Failed(name="dtd", error=GrocoError(reason))

    alike = {"a": {"dtd": failed("x")}, "b": {"dtd": failed("x")}}
    assert {name: error.message for name, error in failures(alike).items()} == {"dtd": "x"}
    unlike = {"a": {"dtd": failed("x")}, "b": {"dtd": failed("y")}}
    assert {name: error.message for name, error in failures(unlike).items()} == {"dtd, a": "x", "dtd, b": "y"}
    one = {"a": {"dtd": failed("x")}, "b": {"dtd": scored(1, 1)}}
    assert list(failures(one)) == ["dtd, a"]
    assert failures({"a": {"dtd": scored(1, 1), "cars": MISSING}}) == {}


def test_all_that_searched_is_said():
    by_hand, by_torch, linear = scored(1, 1), scored(1, 1, backend="torch"), scored(1, 1, backend="L-BFGS")
    failed, classified = Failed(name="dtd", error=GrocoError("x")), {"dtd": linear, "pets": linear}
    outcomes = {
        "a": {"k-NN": {"dtd": by_hand, "pets": failed}, "linear": classified},
        "b": {"k-NN": {"dtd": by_hand, "pets": by_torch}, "linear": classified},
        "c": {"k-NN": {"dtd": failed, "pets": failed}, "linear": classified},
    }
    encoder = Encoder(nn.Flatten(), 12, EncoderMetadata(arch="pixels"))
    for names, recorded, noted in (("abc", "by hand; torch", "by hand; torch"), ("c", None, "nothing")):
        report = transfer_report(
            [Compared(name=name, path=Path(name), encoder=encoder) for name in names],
            {name: outcomes[name] for name in names},
            root=Path("data"),
            k=20,
            temperature=0.07,
            features=Extraction(device=torch.device("cpu"), workers=0, cache=None, cache_dtype="fp32"),
            paper=False,
        )
        assert report.record["backend"] == recorded
        assert report.notes[0].endswith(f"search by {noted}")


def test_a_spreadsheet_has_a_row_for_each_encoder_and_set():
    head, *rows = csv_rows(
        {"a": {"dtd": scored(0.5, 1 / 3), "cars": MISSING}, "b": {"dtd": scored(0, 0), "cars": MISSING}}
    )
    assert head == ["encoder", "set", "outcome", "top1", "mean_per_class", "bank", "queries"]
    assert rows[0] == ["a", "dtd", "whole", "0.5", repr(1 / 3), "60", "30"]
    assert rows[1] == ["a", "cars", "missing", "", "", "", ""]
    assert len(rows) == 4

"""The picture of queries and neighbours: what stands where, framed how, and whose pictures they are."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from groco_cli.data.sources import Dataset, FileSource
from groco_cli.evaluation.knn_figure import RIGHT, WRONG, draw_neighbours, spread
from groco_cli.evaluation.neighbours import Neighbours
from groco_cli.figures import write_figure


@pytest.fixture
def dataset(noise) -> Dataset:
    return Dataset("noise", noise(9), noise(6, seed=1))  # labelled 0, 1, 2, 0, 1, …


@pytest.fixture
def neighbours() -> Neighbours:
    return Neighbours(
        torch.tensor([[0.9, 0.5, -0.25]] * 6), torch.tensor([[i, i + 1, i + 3] for i in range(6)]), "by hand"
    )


def rows_of(figure, columns: int) -> list[list]:
    return np.array(figure.axes, dtype=object).reshape(-1, columns).tolist()


def test_each_query_stands_before_its_neighbours_framed_by_whether_they_are_right(dataset, neighbours):
    figure = draw_neighbours(dataset, neighbours, "title", queries=6)
    rows = rows_of(figure, 5)
    assert len(rows) == 6
    for query, (asked, _, *found) in enumerate(rows):
        np.testing.assert_array_equal(asked.images[0].get_array(), dataset.test.images[query].permute(1, 2, 0))
        assert asked.get_xlabel() == "abc"[query % 3]
        for axes, row, right in zip(found, (query, query + 1, query + 3), (True, False, True), strict=True):
            np.testing.assert_array_equal(axes.images[0].get_array(), dataset.train.images[row].permute(1, 2, 0))
            assert to_hex(axes.spines["top"].get_edgecolor()) == (RIGHT if right else WRONG)
            assert axes.get_xlabel()[0] == ("✓" if right else "✗")
        assert [axes.get_xlabel()[2:] for axes in found] == ["0.900", "0.500", "-0.250"]


def test_leave_one_out_asks_the_bank_itself(dataset, neighbours):
    figure = draw_neighbours(Dataset("noise", dataset.train, None), neighbours, "title", queries=1, most=2)
    ((asked, _, *found),) = rows_of(figure, 4)
    assert len(found) == 2
    np.testing.assert_array_equal(asked.images[0].get_array(), dataset.train.images[3].permute(1, 2, 0))


def test_queries_are_taken_evenly_from_all_of_them():
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(1, 1) == [0]
    for total in range(1, 40):
        chosen = spread(total, 7)
        assert len(set(chosen)) == min(total, 7)
        assert all(0 <= number < total for number in chosen)


@pytest.mark.filterwarnings("error::UserWarning")
def test_names_are_drawn_as_they_stand_whatever_is_in_them(dataset, neighbours, tmp_path):
    names = ("ümläut $x_{$ y", "f\udce9", "$a$")
    asked = Dataset("noise", replace(dataset.train, classes=names), replace(dataset.test, classes=names))
    figure = draw_neighbours(asked, neighbours, "on $\\nosuch$ f\udce9", queries=3)
    assert write_figure(figure, tmp_path / "x.png") == ""
    assert [row[0].get_xlabel() for row in rows_of(figure, 5)] == ["f?", "ümläut $x_{$ y", "$a$"]
    assert figure.get_suptitle() == r"on $\nosuch$ f?"


def test_large_and_oblong_pictures_are_shrunk_and_keep_their_shape(picture_folder):
    folder = picture_folder("a/0.png", "b/1.png", size=(400, 200))
    source = FileSource((folder / "a/0.png", folder / "b/1.png"), torch.tensor([0, 1]), ("a" * 40, "b"))
    found = Neighbours(torch.tensor([[1.0], [1.0]]), torch.tensor([[0], [0]]), "by hand")
    figure = draw_neighbours(Dataset("files", source, source), found, "title")
    rows = rows_of(figure, 3)
    assert rows[0][0].images[0].get_array().shape == (48, 96, 3)
    assert len(rows[0][0].get_xlabel()) <= 16
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert min(Image.open(buffer).size) > 150

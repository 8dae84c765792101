"""The page: well-formed, complete, and with nothing from outside."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from groco_cli.evaluation.retrieval import mean_scores, score_queries
from groco_cli.evaluation.retrieval_page import retrieval_page
from groco_cli.evaluation.retrieval_search import RetrievalResult
from groco_cli.evaluation.retrieval_set import RetrievalSet, open_images

NASTY = "<script>alert('&\"')</script>"


class Strict(HTMLParser):
    """Reads a page whose every element is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def data(picture_folder, tmp_path: Path) -> RetrievalSet:
    folder = picture_folder(*(f"cls {i}/0.png" for i in range(6)), "query & one.png", "r.png", size=(300, 200))
    picture_folder("far.png")
    truth = tmp_path / "truth.json"
    gnd = [{"bbx": [30, 20, 200, 100], "easy": [0], "hard": [1], "junk": [2]}, {"easy": [3]}]
    imlist = [f"cls {i}/0.png" for i in range(6)]
    truth.write_text(json.dumps({"imlist": imlist, "qimlist": ["query & one.png", "r.png"], "gnd": gnd}))
    opened = open_images(folder, truth, name=NASTY)
    return RetrievalSet(**{**vars(opened), "distractors": (folder / "far.png",)})


@pytest.fixture
def result(data: RetrievalSet) -> RetrievalResult:
    ranking = torch.tensor([[0, 2, 4, 1, 6, 3, 5], [5, 3, 0, 1, 2, 4, 6]])
    scores = score_queries(ranking.T, data.ground_truth)
    return RetrievalResult(
        scores=mean_scores(scores),
        queries=scores,
        first=ranking[:, :5],
        similarities=torch.linspace(0.9, 0.1, 5).repeat(2, 1),
        backend="FAISS",
    )


@pytest.fixture
def page(data: RetrievalSet, result: RetrievalResult) -> str:
    return retrieval_page(data, {"one": result, NASTY: result}, {"protocol": "dino, <224> pixels"})


def test_it_is_well_formed(page: str):
    parsed = Strict(page)
    assert page.startswith("<!doctype html>")
    assert [tag for tag, _ in parsed.elements[:2]] == ["html", "head"]
    assert len(parsed.all("section")) == 2
    assert len(parsed.all("li")) == 2 * 2 * 5


def test_nothing_comes_from_outside(page: str):
    parsed = Strict(page)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in parsed.elements}
    for _, attributes in parsed.elements:
        assert attributes.keys() <= {"lang", "charset", "name", "content", "class", "id", "alt", "src"}
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for attributes in parsed.all("img"))
    assert not re.search(r"https?:|url\(|@import", page)


def test_names_are_escaped(page: str):
    assert NASTY not in page
    parsed = Strict(page)
    assert ("title", f"groco retrieve: {NASTY}") in parsed.texts
    assert ("h2", "1. query & one.png") in parsed.texts
    assert ("dd", "dino, <224> pixels") in parsed.texts


def test_right_wrong_and_ignored_are_marked_by_word_and_frame(page: str):
    parsed = Strict(page)
    frames = [attributes["class"] for attributes in parsed.all("li")]
    said = [text for tag, text in parsed.texts if tag == "span" and re.match(r"\d+\. ", text)]
    first = ["right (easy)", "ignored (junk)", "wrong", "right (hard)", "wrong (distractor)"]
    second = ["wrong", "right (easy)", "wrong", "wrong", "wrong"]
    assert said == [f"{rank}. {word}" for row in (first, first, second, second) for rank, word in enumerate(row, 1)]
    assert frames == [text.split()[1] for text in said]
    legend = [attributes["class"] for attributes in parsed.all("b")]
    assert legend == ["right", "wrong", "ignored"]


def test_what_is_found_is_called_as_in_imlist(page: str, data: RetrievalSet):
    names = [text.partition(" ")[2] for tag, text in Strict(page).texts if tag == "span" and text[:2] == "0."]
    first = ["cls 0/0.png", "cls 2/0.png", "cls 4/0.png", "cls 1/0.png", str(data.distractors[0])]
    second = [f"cls {i}/0.png" for i in (5, 3, 0, 1, 2)]
    assert names == [*first, *first, *second, *second]


def test_scores_are_shown_for_all_and_for_each_query(page: str, result: RetrievalResult):
    texts = [text for _, text in Strict(page).texts]
    assert texts.count(f"{100 * result.scores['medium'].mean_ap:.2f}") == 2
    # By hand: easy 1; medium: ranks 0 and 2 without the junk, (1 + (1/2 + 2/3)/2)/2; hard: rank 1, (0 + 1/2)/2.
    assert "one: AP % easy 100.0, medium 79.2, hard 25.0" in texts
    assert "one: AP % easy 25.0, medium 25.0, hard –" in texts
    assert any(text.startswith("0.900") for text in texts)


def test_pictures_are_small_and_the_query_has_its_box(page: str):
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        for attributes in Strict(page).all("img")
    ]
    assert len(pictures) == 2 * (1 + 2 * 5)
    assert all(picture.width <= 200 and picture.height <= 150 for picture in pictures)
    query = pictures[0]
    assert query.size == (200, 133)
    for place in ((20, 40), (70, 14)):  # the left and the upper edge of the box, drawn orange
        red, _, blue = query.convert("RGB").getpixel(place)
        assert red - blue > 100


def test_names_that_are_no_text_are_shown_all_the_same(data: RetrievalSet, result: RetrievalResult):
    page = retrieval_page(data, {"bad \udcff name": result}, {})
    assert "bad ? name" in page
    page.encode("utf-8")

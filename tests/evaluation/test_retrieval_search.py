"""The whole way from pictures to scores, against features and rankings made apart from it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from groco_cli.errors import GrocoError
from groco_cli.evaluation.ground_truth import GroundTruth, QueryTruth
from groco_cli.evaluation.retrieval import evaluate_ranking
from groco_cli.evaluation.retrieval_features import retrieval_features
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
from groco_cli.evaluation.retrieval_search import RetrievalResult, evaluate_retrieval, pictures_to_see
from groco_cli.evaluation.retrieval_set import RetrievalSet, list_pictures
from groco_cli.evaluation.whitening import learn_whitening
from groco_cli.models import Encoder, EncoderMetadata

CPU = torch.device("cpu")
WHOLE = RetrievalProtocol(name="dino", crop_query=False, image_size=16, scales=(1.0,))


class Colours(nn.Module):
    """The mean and deviation of each channel: what little a picture of noise can be told by."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(Colours(), 6, EncoderMetadata(arch="colours", mean=(0.5,) * 3, std=(0.25,) * 3))


@pytest.fixture
def data(picture_folder) -> RetrievalSet:
    names = [f"image{i:02d}.png" for i in range(150)]
    folder = picture_folder(*names, *(f"query{i}.png" for i in range(3)), *(f"far/{i}.png" for i in range(5)))
    kinds = ({"easy": (0, 5), "hard": (7,), "junk": (1,)}, {"hard": (149, 3)}, {"easy": (99,), "junk": (2, 4)})
    gnd = (QueryTruth(bbx=(1, 1, 6, 7), **{"easy": (), "hard": (), "junk": ()} | kind) for kind in kinds)
    queries = tuple(folder / f"query{i}.png" for i in range(3))
    return RetrievalSet(
        name="noise",
        ground_truth=GroundTruth(imlist=tuple(names), qimlist=("query0", "query1", "query2"), gnd=tuple(gnd)),
        images=tuple(folder / name for name in names),
        queries=queries,
    )


def features_of(encoder: Encoder, paths, boxes=None) -> Tensor:
    return torch.cat(list(retrieval_features(encoder, paths, boxes, protocol=WHOLE, device=CPU, workers=0)))


@pytest.mark.parametrize("cropped", [False, True])
def test_scores_and_first_ones_are_those_of_a_full_sort(encoder: Encoder, data: RetrievalSet, cropped: bool):
    boxes = [(1, 1, 6, 7)] * 3 if cropped else None
    bank, asked = features_of(encoder, data.images), features_of(encoder, data.queries, boxes)
    cosines = bank.double().numpy() @ asked.double().numpy().T
    ranks = np.argsort(-cosines, axis=0, kind="stable")
    result = evaluate_retrieval(encoder, data, replace(WHOLE, crop_query=cropped), device=CPU, workers=0, top=7)
    for setup, expected in evaluate_ranking(ranks, data.ground_truth).items():
        assert result.scores[setup].mean_ap == pytest.approx(expected.mean_ap, abs=1e-12)
        assert result.scores[setup].num_queries == expected.num_queries
    np.testing.assert_array_equal(result.first, ranks[:7].T)
    np.testing.assert_allclose(result.similarities, np.take_along_axis(cosines, ranks[:7], axis=0).T, atol=1e-6)
    assert [score is None for score in result.queries["easy"]] == [False, True, False]


def test_cropping_makes_a_difference(encoder: Encoder, data: RetrievalSet):
    whole, cropped = (
        evaluate_retrieval(encoder, data, replace(WHOLE, crop_query=crop), device=CPU, workers=0)
        for crop in (False, True)
    )
    assert whole.scores["medium"] != cropped.scores["medium"]


def test_copies_among_the_distractors_push_right_images_back(encoder: Encoder, data: RetrievalSet):
    plain = evaluate_retrieval(encoder, data, WHOLE, device=CPU, workers=0)
    more = replace(data, distractors=data.queries * 4)
    result = evaluate_retrieval(encoder, more, WHOLE, device=CPU, workers=0)
    assert len(more.database) == 162
    assert (result.first[:, :4] >= 150).all()
    assert 0 < result.scores["medium"].mean_ap < plain.scores["medium"].mean_ap
    assert result.scores["medium"].mean_precision[0] == 0


def test_whitening_is_learnt_on_the_folder_and_applied_to_both_sides(encoder: Encoder, data: RetrievalSet):
    far = data.images[0].parent / "far"
    whitening = learn_whitening(features_of(encoder, list_pictures(far, "--whiten")))
    bank = whitening(features_of(encoder, data.images))
    asked = whitening(features_of(encoder, data.queries))
    result = evaluate_retrieval(encoder, data, replace(WHOLE, whiten=far), device=CPU, workers=0, top=3)
    torch.testing.assert_close(result.similarities, (asked @ bank.T).topk(3, dim=1).values)
    plain = evaluate_retrieval(encoder, data, WHOLE, device=CPU, workers=0, top=3)
    assert not torch.equal(result.first, plain.first)


def test_every_picture_is_counted(encoder: Encoder, data: RetrievalSet):
    far: Path = data.images[0].parent / "far"
    for protocol, expected in ((WHOLE, 153), (replace(WHOLE, whiten=far), 158)):
        counted: list[int] = []
        evaluate_retrieval(encoder, data, protocol, device=CPU, workers=0, advance=counted.append)
        assert sum(counted) == pictures_to_see(data, protocol) == expected


@pytest.fixture
def searched(encoder: Encoder, data: RetrievalSet, tmp_path: Path) -> Callable[..., tuple[RetrievalResult, int]]:
    """A search by way of the cache, and how many pictures the encoder was shown for it: `searched(image_size=8)`."""

    def search(data: RetrievalSet = data, **options: object) -> tuple[RetrievalResult, int]:
        shown: list[int] = []
        hook = encoder.register_forward_hook(lambda module, images, output: shown.append(len(output)))
        asked = {name: options.pop(name) for name in list(options) if name in WHOLE.__dataclass_fields__}
        options = {"cache": tmp_path / "cache", "top": 150} | options
        try:
            result = evaluate_retrieval(encoder, data, replace(WHOLE, **asked), device=CPU, workers=0, **options)
        finally:
            hook.remove()
        return result, sum(shown)

    return search


def same(one: RetrievalResult, other: RetrievalResult) -> bool:
    assert torch.equal(one.first, other.first)
    assert torch.equal(one.similarities, other.similarities)
    return one.queries == other.queries


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_second_search_extracts_nothing_and_finds_the_same(searched, tmp_path, dtype):
    without, shown = searched(cache=None, cache_dtype=dtype)
    assert (shown, (tmp_path / "cache").exists()) == (153, False)
    told: list[str] = []
    for expected in (153, 0):
        counted: list[int] = []
        assert told == []
        result, shown = searched(cache_dtype=dtype, tell=told.append, advance=counted.append)
        assert (shown, sum(counted)) == (expected, 153)
        assert same(result, without)
    assert [line.split(": from the cache ")[0] for line in told] == ["noise queries", "noise database"]
    kept = {Path(line.split(": from the cache ")[1]) for line in told}
    assert kept == set((tmp_path / "cache").iterdir())
    assert all(path.is_file() for path in kept)


def test_only_what_an_option_changes_is_extracted_anew(searched, data):
    far = data.images[0].parent / "far"
    more = replace(data, distractors=list_pictures(far, "--distractors"))
    assert searched()[1] == 153
    assert searched(top=3)[1] == 0
    assert searched(whiten=far)[1] == 5
    assert searched(more)[1] == 0, "the same pictures, seen the same way, as those that whiten"
    assert searched(crop_query=True)[1] == 3
    assert searched(image_size=8)[1] == 153
    assert searched(scales=(1.0, 0.5))[1] == 2 * 153
    assert searched(cache_dtype="fp16")[1] == 153
    assert searched(crop_query=True, whiten=far)[1] == 0


def test_other_boxes_and_touched_pictures_are_extracted_anew(searched, data):
    searched(crop_query=True)
    gnd = tuple(replace(truth, bbx=(0, 0, 5, 5)) for truth in data.ground_truth.gnd)
    moved = replace(data, ground_truth=replace(data.ground_truth, gnd=gnd))
    assert [searched(moved, crop_query=True)[1], searched(moved, crop_query=True)[1]] == [3, 0]
    path = data.queries[1]
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert [searched(crop_query=True)[1], searched(crop_query=True)[1]] == [3, 0]


def test_a_bad_distractor_costs_nothing_of_what_was_extracted_before_it(searched, data):
    bad = data.images[0].with_name("bad.png")
    bad.write_bytes(data.images[0].read_bytes()[:40])
    more = replace(data, distractors=(bad,))
    with pytest.raises(GrocoError, match=r"cannot decode .*bad\.png"):
        searched(more)
    bad.write_bytes(data.images[0].read_bytes())
    assert searched(more)[1] == 1

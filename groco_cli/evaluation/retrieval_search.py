"""Encoder to score on a retrieval set: features, exact search, the measure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from groco_cli.distributed import collectives
from groco_cli.evaluation.ground_truth import Box
from groco_cli.evaluation.retrieval import QueryScore, RetrievalScore, mean_scores, score_queries
from groco_cli.evaluation.retrieval_features import retrieval_features
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
from groco_cli.evaluation.retrieval_set import RetrievalSet, list_pictures
from groco_cli.evaluation.whitening import learn_whitening
from groco_cli.models import Encoder

# Features of the database are compared as they are computed and not kept: a million distractors need 4 bytes a query.
BACKEND = "exact inner products, torch, CPU"


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """A retrieval evaluation.

    Args:
        scores: For "easy", "medium" and "hard".
        queries: The same for each query, None where it has no right image.
        first: The best-ranked of the database for each query, by number, int64 [queries, top].
        similarities: Their cosines, float32 [queries, top].
    """

    scores: dict[str, RetrievalScore]
    queries: dict[str, list[QueryScore | None]]
    first: Tensor
    similarities: Tensor


def pictures_to_see(data: RetrievalSet, protocol: RetrievalProtocol) -> int:
    """How many pictures an evaluation runs through an encoder."""
    learnt_on = list_pictures(protocol.whiten, "--whiten") if protocol.whiten else ()
    return len(learnt_on) + len(data.queries) + len(data.database)


def evaluate_retrieval(
    encoder: Encoder,
    data: RetrievalSet,
    protocol: RetrievalProtocol,
    *,
    device: torch.device,
    workers: int,
    top: int = 10,
    advance: Callable[[int], None] = lambda count: None,
) -> RetrievalResult:
    """Rank the whole database for every query, and score the rankings.

    Equally similar images keep their order in the database. Under torch.distributed each process takes its part of the
    pictures, and all are given the result.

    Args:
        encoder: Gives the features; takes pictures of any size.
        data: Pictures and right answers.
        protocol: How pictures become features.
        device: Where features are computed.
        workers: Processes that decode.
        top: How many of each ranking to keep.
        advance: Called with the number of pictures done by about all processes, batch by batch.

    Raises:
        GrocoError: If a picture cannot be read, or a feature is not finite.
    """

    def features(paths: Sequence[Path], boxes: Sequence[Box | None] | None = None) -> Iterator[Tensor]:
        """Of this process's part of the pictures."""
        own = collectives.share_of(len(paths))
        yield torch.empty(0, encoder.feature_dim)
        yield from retrieval_features(
            encoder,
            paths[own.start : own.stop],
            boxes and boxes[own.start : own.stop],
            protocol=protocol,
            device=device,
            workers=workers,
            advance=lambda count: advance(count * collectives.world_size()),
        )

    def all_features(paths: Sequence[Path], boxes: Sequence[Box | None] | None = None) -> Tensor:
        return collectives.all_rows(torch.cat(list(features(paths, boxes))), len(paths), device)

    finish: Callable[[Tensor], Tensor] = nn.Identity()
    if protocol.whiten:
        finish = learn_whitening(all_features(list_pictures(protocol.whiten, "--whiten")))
    boxes = [truth.bbx for truth in data.ground_truth.gnd] if protocol.crop_query else None
    queries = finish(all_features(data.queries, boxes))
    found = torch.cat([finish(block) @ queries.T for block in features(data.database)])
    similarities = collectives.all_rows(found, len(data.database), device).T
    ranking = similarities.argsort(dim=1, descending=True, stable=True)
    scores = score_queries(ranking.T, data.ground_truth)
    first = ranking[:, :top].clone()
    return RetrievalResult(
        scores=mean_scores(scores), queries=scores, first=first, similarities=similarities.gather(1, first)
    )

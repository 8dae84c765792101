"""Encoder to score on a retrieval set: features, exact search, the measure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from groco_cli.data.sources import FileSource
from groco_cli.distributed import collectives
from groco_cli.evaluation.feature_cache import as_kept, features_once
from groco_cli.evaluation.fingerprint import check_same_in_all
from groco_cli.evaluation.ground_truth import Box
from groco_cli.evaluation.index import Products
from groco_cli.evaluation.index.blocks import blocks
from groco_cli.evaluation.retrieval import QueryScore, RetrievalScore, mean_scores, score_queries
from groco_cli.evaluation.retrieval_features import BATCH, retrieval_features, shown
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
from groco_cli.evaluation.retrieval_set import RetrievalSet, list_pictures
from groco_cli.evaluation.whitening import learn_whitening
from groco_cli.models import Encoder

Boxes = Sequence[Box | None] | None


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """A retrieval evaluation.

    Args:
        scores: For "easy", "medium" and "hard".
        queries: The same for each query, None where it has no right image.
        first: The best-ranked of the database for each query, by number, int64 [queries, top].
        similarities: Their cosines, float32 [queries, top].
        backend: What multiplied.
    """

    scores: dict[str, RetrievalScore]
    queries: dict[str, list[QueryScore | None]]
    first: Tensor
    similarities: Tensor
    backend: str


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
    cache: Path | None = None,
    cache_dtype: str = "fp32",
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int], None] = lambda count: None,
) -> RetrievalResult:
    """Rank the whole database for every query, and score the rankings.

    Equally similar images keep their order in the database. Under torch.distributed each process takes its part of the
    pictures, all are given the result, and what one fails with is raised in all.

    Args:
        encoder: Gives the features; takes pictures of any size.
        data: Pictures and right answers.
        protocol: How pictures become features.
        device: Where features are computed and compared.
        workers: Processes that decode.
        top: How many of each ranking to keep.
        cache: Where features are kept, before any whitening: queries, database and distractors apart. None to keep
            none, and to compare those of the database as they are computed.
        cache_dtype: What they are kept in: "fp32" or "fp16".
        tell: Called with a line on what the cache had already.
        advance: Called with the number of pictures done by about all processes, batch by batch.

    Raises:
        GrocoError: If a picture cannot be read, a feature is not finite, the processes have different encoders, or the
            cache cannot be written to.
    """
    check_same_in_all(encoder)
    features = _Features(
        encoder=encoder,
        data=data.name,
        protocol=protocol,
        device=device,
        workers=workers,
        cache=cache,
        dtype=cache_dtype,
        tell=tell,
        advance=advance,
    )
    finish: Callable[[Tensor], Tensor] = nn.Identity()
    if protocol.whiten:
        finish = learn_whitening(features.of("whitening", list_pictures(protocol.whiten, "--whiten")))
    boxes = [truth.bbx for truth in data.ground_truth.gnd] if protocol.crop_query else None
    queries = finish(features.of("queries", data.queries, boxes))
    products = Products(device)

    # Block by block: of a million distractors, what is in memory is their cosines, 4 bytes per query.
    def cosines(part: str, paths: tuple[Path, ...]) -> Tensor:
        own = (products(finish(block), queries) for block in features.own_blocks(part, paths))
        return _gathered(own, len(queries), len(paths), device)

    # The distractors apart, so that what is kept of them serves both sets, and of either set with and without them.
    similarities = torch.cat([cosines("database", data.images), cosines("distractors", data.distractors)]).T
    ranking = similarities.argsort(dim=1, descending=True, stable=True)
    scores = score_queries(ranking.T, data.ground_truth)
    first = ranking[:, :top].clone()
    return RetrievalResult(
        scores=mean_scores(scores),
        queries=scores,
        first=first,
        similarities=similarities.gather(1, first),
        backend=products.backend,
    )


@dataclass(frozen=True, kw_only=True)
class _Features:
    """Features of one evaluation: read where they are kept, or as the encoder gives them. See `evaluate_retrieval`."""

    encoder: Encoder
    data: str
    protocol: RetrievalProtocol
    device: torch.device
    workers: int
    cache: Path | None
    dtype: str
    tell: Callable[[str], None]
    advance: Callable[[int], None]

    def of(self, part: str, paths: tuple[Path, ...], boxes: Boxes = None) -> Tensor:
        """Of all pictures, float32 [n, D]."""
        return _gathered(self.own_blocks(part, paths, boxes), self.encoder.feature_dim, len(paths), self.device)

    def own_blocks(self, part: str, paths: tuple[Path, ...], boxes: Boxes = None) -> Iterator[Tensor]:
        """Of this process's part of the pictures, float32, in the same blocks whether kept or not."""
        own = collectives.share_of(len(paths))
        if self.cache is None:
            for block in self._extracted(paths, boxes, own):
                yield as_kept(block, self.dtype).float()
                self.advance(len(block) * collectives.world_size())
        elif paths:
            kept = features_once(
                self.encoder,
                FileSource(paths, None, ()),
                lambda some: self._extracted(paths, boxes, some),
                shown=shown(self.encoder, self.protocol, boxes),
                folder=self.cache,
                device=self.device,
                dtype=self.dtype,
                found=lambda path: self.tell(f"{self.data} {part}: from the cache {path}"),
                advance=self.advance,
            )
            mine = kept[own.start : own.stop]
            yield from (mine[block].float() for block in blocks(len(mine), BATCH))

    def _extracted(self, paths: tuple[Path, ...], boxes: Boxes, some: range) -> Iterator[Tensor]:
        return retrieval_features(
            self.encoder,
            paths[some.start : some.stop],
            boxes and boxes[some.start : some.stop],
            protocol=self.protocol,
            device=self.device,
            workers=self.workers,
        )


def _gathered(rows: Iterator[Tensor], width: int, total: int, device: torch.device) -> Tensor:
    """All rows [total, width], of which each process has its part; what one fails with is raised in all."""
    with collectives.failing_together():
        own = torch.cat([torch.empty(0, width), *rows])
    return collectives.all_rows(own, total, device)

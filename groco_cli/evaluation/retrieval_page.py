"""A page that shows queries with what was found for them: one HTML file that needs no other, and no script."""

import base64
import io
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw

from groco_cli.data.decoding import decode
from groco_cli.evaluation.ground_truth import KINDS, Box
from groco_cli.evaluation.retrieval import SETUPS
from groco_cli.evaluation.retrieval_search import RetrievalResult
from groco_cli.evaluation.retrieval_set import RetrievalSet
from groco_cli.evaluation.retrieval_table import score_table

_THUMBNAIL = (200, 150)
# How a ranked picture is framed, by its kind: as "medium" takes it.
_MARKS = {"easy": "right", "hard": "right", "junk": "ignored", "wrong": "wrong", "distractor": "wrong"}
_STYLE = """
:root { color-scheme: light dark; --right: light-dark(#1a7f37, #4ac26b); --wrong: light-dark(#cf222e, #ff7b72);
  --ignored: light-dark(#8c959f, #7d8590); --line: light-dark(#d0d7de, #30363d); --dim: light-dark(#59636e, #9198a1) }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 92rem; padding: 0 1rem;
  background: light-dark(#fff, #0d1117); color: light-dark(#1f2328, #e6edf3) }
h1 { font-size: 1.5rem } h2 { font-size: 1.05rem; margin: 0 0 .5rem; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums } th:first-child, td:first-child { text-align: left }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; color: var(--dim) } dd { margin: 0 }
section { border-top: 1px solid var(--line); padding: 1.2rem 0; display: grid; grid-template-columns: 13rem 1fr;
  gap: 1.5rem } @media (max-width: 50rem) { section { grid-template-columns: 1fr } }
figure { margin: 0 } img { max-width: 100%; height: auto; display: block } p { margin: .2rem 0 .5rem }
ol { list-style: none; margin: 0 0 1rem; padding: 0; display: flex; flex-wrap: wrap; gap: .6rem }
li, b { border: 4px solid; border-radius: 6px }
li { width: 8.2rem; overflow: hidden; font-size: .75rem } li img { width: 100%; height: 6.2rem; object-fit: contain }
li span { display: block; padding: 0 .3rem; overflow-wrap: anywhere } .mark { font-weight: 600 }
b { padding: 0 .4rem; white-space: nowrap } .dim { color: var(--dim) } .scores { overflow-x: auto }
.right { border-color: var(--right) } .wrong { border-color: var(--wrong) }
.ignored { border-color: var(--ignored); border-style: dashed }
"""
_LEGEND = (
    '<p><b class="right">right</b> easy or hard to find &emsp; <b class="wrong">wrong</b> &emsp; '
    '<b class="ignored">ignored</b> junk: neither. Frames are those of the medium setup; easy ignores hard pictures, '
    "hard ignores easy ones.</p>"
)


def retrieval_page(data: RetrievalSet, results: Mapping[str, RetrievalResult], facts: Mapping[str, str]) -> str:
    """Write the page.

    Args:
        data: What was searched.
        results: A result for each encoder, by what the encoder is called.
        facts: Settings to show, by name.

    Returns:
        HTML that refers to nothing outside itself.
    """
    title = f"groco retrieve: {data.name}"
    sections = [_query(number, data, results) for number in range(len(data.queries))]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_text(title)}</h1>",
            _headline(results),
            "<dl>" + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items()) + "</dl>",
            _LEGEND,
            *sections,
            "</body></html>\n",
        ]
    )


def _headline(results: Mapping[str, RetrievalResult]) -> str:
    scores = score_table(results)
    head = "".join(f"<th>{_text(title)}</th>" for title in scores.titles)
    rows = [row for group in scores.shown for row in group]
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scores"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _query(number: int, data: RetrievalSet, results: Mapping[str, RetrievalResult]) -> str:
    name, bbx = data.ground_truth.qimlist[number], data.ground_truth.gnd[number].bbx
    parts = [
        f'<section id="q{number + 1}"><figure><h2>{number + 1}. {_text(name)}</h2>',
        _picture(data.queries[number], name, bbx),
        '<figcaption class="dim">query' + (", its box framed" if bbx else "") + "</figcaption></figure><div>",
    ]
    for encoder, result in results.items():
        aps = (f"{setup} {_ap(result, setup, number)}" for setup in SETUPS)
        parts.append(f"<p>{_text(encoder)}: AP % {', '.join(aps)}</p><ol>")
        ranked = zip(result.first[number].tolist(), result.similarities[number].tolist(), strict=True)
        parts += [_ranked(rank, image, cosine, data, number) for rank, (image, cosine) in enumerate(ranked, 1)]
        parts.append("</ol>")
    return "".join([*parts, "</div></section>"])


def _ap(result: RetrievalResult, setup: str, query: int) -> str:
    score = result.queries[setup][query]
    return "–" if score is None else f"{100 * score.average_precision:.1f}"


def _ranked(rank: int, image: int, cosine: float, data: RetrievalSet, query: int) -> str:
    path, kind = data.database[image], _kind(image, data, query)
    name = data.ground_truth.imlist[image] if kind != "distractor" else str(path)
    mark = _MARKS[kind]
    said = mark if mark == kind else f"{mark} ({kind})"
    return (
        f'<li class="{mark}">{_picture(path, name)}<span class="mark">{rank}. {said}</span>'
        f'<span class="dim">{cosine:.3f} {_text(name)}</span></li>'
    )


def _kind(image: int, data: RetrievalSet, query: int) -> str:
    truth = data.ground_truth.gnd[query]
    found = (kind for kind in KINDS if image in getattr(truth, kind))
    return next(found, "wrong" if image < len(data.images) else "distractor")


def _picture(path: Path, name: str, box: Box | None = None) -> str:
    return f'<img alt="{_text(name)}" src="data:image/jpeg;base64,{_thumbnail(path, box)}">'


@lru_cache(maxsize=4096)
def _thumbnail(path: Path, box: Box | None) -> str:
    """A small JPEG of a picture in base64, a box drawn in."""
    picture = Image.fromarray(decode(path).permute(1, 2, 0).numpy())
    width, height = picture.size
    picture.thumbnail(_THUMBNAIL)
    if box is not None:
        across, down = picture.width / width, picture.height / height
        left, top, right, bottom = box
        ImageDraw.Draw(picture).rectangle(
            (left * across, top * down, right * across, bottom * down), outline=(255, 196, 0), width=2
        )
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _text(value: str) -> str:
    return escape(value.encode("utf-8", "replace").decode())  # names of files may hold bytes that are no text

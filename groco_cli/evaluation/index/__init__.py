"""Nearest neighbours by cosine similarity, the one place that speaks FAISS; torch where FAISS cannot serve.

Every exact index finds the same: the k largest inner products of unit vectors, nearest first, equal ones by their row.
"""

from groco_cli.evaluation.index.opening import Index, choose_library, open_index
from groco_cli.evaluation.index.options import IndexOptions, parse_bytes
from groco_cli.evaluation.index.products import Products

__all__ = ["Index", "IndexOptions", "Products", "choose_library", "open_index", "parse_bytes"]

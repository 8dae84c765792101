"""Nearest neighbours by cosine similarity, the one place that speaks FAISS; torch where FAISS cannot serve.

Every exact index finds the k largest inner products of unit vectors, nearest first, and lists equal ones by their row.
Left to the library are the last bit or two of a product, and which of several equal ones gets the last place.
"""

from groco_cli.evaluation.index.opening import Index, choose_library, open_index
from groco_cli.evaluation.index.options import IndexOptions, parse_bytes

__all__ = ["Index", "IndexOptions", "choose_library", "open_index", "parse_bytes"]

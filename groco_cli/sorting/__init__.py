"""Differentiable sorting networks (paper, section 3.3.1)."""

from groco_cli.sorting.network import SortingNetwork

__all__ = ["SortingNetwork"]

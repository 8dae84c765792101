"""Sphinx: these pages as HTML (`make docs`)."""

project = "groco"
extensions = ["myst_parser"]
myst_heading_anchors = 3  # as GitHub makes them
html_theme = "alabaster"

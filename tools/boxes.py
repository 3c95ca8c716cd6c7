"""A Sphinx extension: the sections that are boxes, and the solutions that are folds.

A section called *When it hurts* or *In D2L* is an admonition for as long as it lasts; the style
sheet knows it by its class. A solution, its cells and its words, is one fold, which the browser
opens and shuts without JavaScript.
"""

import hashlib
from html import escape
from itertools import groupby
from pathlib import Path

from docutils import nodes

SECTIONS = {"When it hurts": "hurts", "In D2L": "in-d2l"}


def mark(section):
    """Make a section an admonition where its title, as it was written, begins with its kind."""
    for words, kind in SECTIONS.items():
        if section[0].rawsource.startswith(words):
            section["classes"] += ["admonition", kind]


def drops(node):
    """Whether a node is a box that drops down."""
    return isinstance(node, nodes.admonition) and "dropdown" in node["classes"]


def folds(node):
    """Whether a node can be a part of a fold: such a box, or a hidden cell."""
    return drops(node) or (isinstance(node, nodes.container) and node.get("hide_mode") == "all")


def fold(run):
    """Return neighbours that can be parts of a fold as one, under the title of their only box."""
    if sum(map(drops, run)) != 1:
        return [part for node in run for part in (fold([node]) if drops(node) else [node])]
    inside = []
    for part in run:
        if drops(part):
            title, *words = part
            inside += words
        else:
            part["hide_mode"] = None
            inside.append(part)
    summary = f'<summary class="admonition-title">{escape(title.astext())}</summary>'
    start, end = f'<details class="admonition solution">{summary}', "</details>"
    return [nodes.raw("", start, format="html"), *inside, nodes.raw("", end, format="html")]


def box(app, doctree):
    """Mark the sections of a page, and fold its solutions."""
    for section in list(doctree.findall(nodes.section)):
        mark(section)
        parts, section.children = section.children, []
        for is_fold, run in groupby(parts, folds):
            run = list(run)
            section += fold(run) if is_fold else run


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-read", box)
    # A change of this file reads every page again.
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    app.add_config_value("boxes_source", source, "env", str)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""A Sphinx extension: pages that need no other host, with formulas typeset at build time.

KaTeX runs inside the build in a JavaScript engine that pip installs, so a page shows its
formulas without any JavaScript, carries MathML for screen readers, and a mistake in a formula
is a warning that names page, line and formula (an error under ``-W``).
"""

import hashlib
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

KATEX = Path(__file__).parent.parent / "book" / "_static" / "katex"
NUMBERED = re.compile(r"\\(begin|end)\{(align|alignat|equation|gather)\}")
# What reads badly in two lines: n = 60, 0 ≤ p < 1, 95 %, 1e-4.
TOGETHER = re.compile(r"\S{1,12}(?: [=≠<>≤≥≈] \S{1,12})+|\d\S* %\S*|\S*\d[eE]-\d\S*")
UNUSED = {"sphinx_thebe": "sphinx-thebe.css", "sphinx_togglebutton": "togglebutton.css"}
logger = logging.getLogger(__name__)


@cache
def engine():
    """Return the JavaScript engine with KaTeX loaded, started once for the whole book."""
    racer = MiniRacer()
    racer.eval((KATEX / "katex.min.js").read_text("utf-8"))
    return racer


@cache
def typeset(tex, display):
    r"""Return the HTML and MathML of one formula.

    Sphinx numbers equations, so ``align`` becomes ``align*`` lest KaTeX number it again.
    Raises ValueError, in KaTeX's own words, where it does not understand the formula.
    """
    options = {"displayMode": display, "throwOnError": True, "strict": "ignore"}
    try:
        return engine().call("katex.renderToString", NUMBERED.sub(r"\\\1{\2*}", tex), options)
    except JSEvalException as error:
        reason = str(error).partition("KaTeX parse error: ")[2].partition("\n")[0]
        raise ValueError(reason.replace("\u0332", "") or str(error)) from error


def typeset_or_warn(writer, node, tex, display):
    """Return a node's formula typeset, or its source after a warning."""
    try:
        return typeset(tex, display)
    except ValueError as error:
        logger.warning("formula %s: %s", node.astext(), error, location=node)
        return writer.encode(tex)


def visit_math(self, node):
    """Write an inline formula."""
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate"))
    self.body.append(typeset_or_warn(self, node, node.astext(), display=False) + "</span>")
    raise nodes.SkipNode


def visit_math_block(self, node):
    """Write a displayed formula and the number that Sphinx gave it."""
    tex = node.astext()
    if r"\\" in tex and not node["nowrap"]:
        tex = rf"\begin{{split}}{tex}\end{{split}}"
    # The theme lets the keyboard into what has its scrolling class and is too wide.
    self.body.append(
        self.starttag(node, "div", CLASS="math notranslate pst-scrollable-table-container")
    )
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(typeset_or_warn(self, node, tex, display=True) + "</div>\n")
    raise nodes.SkipNode


def hold_punctuation(app, doctree, docname):
    """Keep a formula and the comma after it in one line."""
    for formula in list(doctree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        after = parent[place + 1] if place + 1 < len(parent) else ""
        if mark := isinstance(after, nodes.Text) and re.match(r"[.,;:!?)\]’”]+", after):
            held = nodes.inline("", "", formula, nodes.Text(mark[0]), classes=["held"])
            parent[place : place + 2] = [held, nodes.Text(after[mark.end() :])]


def hold_together(app, doctree, docname):
    """Keep a short equation, a percentage and a short piece of code in one line."""
    for code in doctree.findall(nodes.literal):
        code["classes"] += ["held"] * (len(code.astext()) <= 20)
    apart = (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.math_block, nodes.raw)
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, apart) or not TOGETHER.search(text):
            continue
        parts, end = [], 0
        for found in TOGETHER.finditer(text):
            held = nodes.inline("", found[0], classes=["held"])
            parts += [nodes.Text(text[end : found.start()]), held]
            end = found.end()
        text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def unhook(app):
    """Take out what Jupyter Book always loads: thebe names a host on every page, boxes.py folds."""
    listeners = [listener for event in app.events.listeners.values() for listener in event]
    for listener in listeners:
        if listener.handler.__module__ in UNUSED:
            app.disconnect(listener.id)
    css_files = app.registry.css_files
    css_files[:] = [css for css in css_files if css[0] not in UNUSED.values()]


def renamed_pages(app, env):
    """Return all pages when a title changed, since every sidebar shows every title."""
    titles = {name: title.astext() for name, title in env.titles.items()}
    before, env.book_titles = getattr(env, "book_titles", titles), titles
    return sorted(titles) if titles != before else []


def setup(app):
    """Register with Sphinx; ``html_math_renderer: katex`` selects the formula writer."""
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
    app.add_css_file("katex/katex.min.css")
    unhook(app)
    app.connect("doctree-resolved", hold_punctuation)
    app.connect("doctree-resolved", hold_together)
    app.connect("env-updated", renamed_pages)
    # A change of this file rewrites every page.
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    app.add_config_value("offline_source", source, "html", str)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

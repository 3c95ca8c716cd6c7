"""A Sphinx extension: the texts that the search page looks through.

Sphinx's own search knows which pages have a word, but not how often or where, and fetches whole
pages for their snippets, which browsers refuse from disk. Here each page leaves its sections'
text, one script carries them all, and ``book/_static/search.js`` ranks and shows them. The
glossary says in which chapter a term is taught ("See …") and what it is called in Chinese.
"""

import hashlib
import json
import posixpath
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

from tools.offline import typeset

BETWEEN = {"mfrac": "/", "msup": "^", "msub": "_"}


def formula(tex):
    """Return a formula as one line of text, from the MathML of its typeset form."""
    try:
        return said_math(ET.fromstring(re.search("(?s)<math.*</math>", typeset(tex, False))[0]))
    except (ValueError, ET.ParseError):
        return tex


def said_math(element):
    """Return what a MathML element says: ``λ/2 ∥w∥^2``."""
    kind = element.tag.rpartition("}")[2]
    parts = [said_math(part) for part in element if not part.tag.endswith("annotation")]
    if kind in BETWEEN:
        return BETWEEN[kind].join(p if len(p) == 1 else f"({p})" for p in parts)
    return ("√" if kind == "msqrt" else (element.text or "").strip()) + "".join(parts)


def said(node):
    """Return the text of a node as a reader sees it, each formula once."""
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, nodes.math):
        return formula(node.astext())
    return "" if isinstance(node, nodes.raw) else "".join(map(said, node.children))


def names(code):
    """Return what a piece of code defines, calls or hands over by name."""
    return re.findall(r"[^\W\d]\w{2,}(?=\(|=\S)", code)


def sections(doctree):
    """Return [{id, title, text, code, node}] of the sections and glossary entries of a page."""
    found = []

    def open_section(node, title):
        ids = [*node["ids"], *title["ids"]]
        found.append({"id": ids[0], "title": said(title), "text": [], "code": [], "node": node})

    def walk(node):
        if isinstance(node, nodes.section | nodes.definition_list_item):
            title = node.children[0]
            if isinstance(node, nodes.section) or isinstance(node.parent.parent, addnodes.glossary):
                open_section(node, title)
                node = nodes.container("", *[c.deepcopy() for c in node.children if c is not title])
        kind = node["classes"]
        if "estimate" in kind or "cell_output" in kind and not node.next_node(nodes.paragraph):
            return  # numbers
        if isinstance(node, nodes.literal_block) and found:
            found[-1]["code"] += names(node.astext())
        elif isinstance(node, nodes.TextElement) and found:
            words = "" if isinstance(node, nodes.FixedTextElement) else said(node)
            if re.search(r"[^\W\d]{2}", words):
                found[-1]["text"].append(words)
        else:
            for child in node.children:
                walk(child)

    walk(doctree)
    said_already = set()
    for section in found:
        section["text"] = " ".join(" ".join(section["text"]).split())
        said_already |= set(re.findall(r"\w+", section["text"]))
        section["code"] = sorted(set(section["code"]) - said_already)
        said_already |= set(section["code"])
    return found


def entry(section, page):
    """Return a section of the glossary as a place of its own: its Chinese names, its chapter."""
    node = section["node"]
    chinese = [n.astext() for n in node.findall(nodes.inline) if "language-zh" in n["classes"]]
    places = [r["refuri"] for r in node.findall(nodes.reference) if "refuri" in r]
    pages = [posixpath.normpath(posixpath.join(posixpath.dirname(page), p)) for p in places]
    taught = [p.partition("#")[0] for p in pages if not p.startswith(page)]
    return {
        "url": page,
        "term": section["title"],
        "chinese": "、".join(chinese).split("、"),
        "taught": taught[-1] if taught else "",
    }


def leave_texts(app, doctree, docname):
    """Write what one page says beside its doctree, so that later builds have it, too."""
    if app.builder.format != "html":
        return
    page = app.builder.get_target_uri(docname)
    found = sections(doctree)
    if "nosearch" in app.env.metadata[docname]:  # as Sphinx has it: the page alone, by its title
        found = [{**found[0], "text": "", "code": []}]
    entries = [s for s in found if isinstance(s["node"], nodes.definition_list_item)]
    places = [(entry(s, page), [s]) for s in entries] or [({"url": page}, found)]
    for place, parts in places:
        place["title"] = found[0]["title"]
        place["sections"] = [
            {
                "id": part["id"],
                "title": part["title"],
                "text": part["text"],
                "code": " ".join(part["code"]),
            }
            for part in parts
        ]
    kept = Path(app.doctreedir, f"{docname}.search.json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([place for place, _ in places]), "utf-8")


def gather_texts(app, error):
    """Write the script with the texts of all pages."""
    if error or app.builder.format != "html":
        return
    kept = (Path(app.doctreedir, f"{name}.search.json") for name in sorted(app.env.found_docs))
    places = [place for file in kept if file.exists() for place in json.loads(file.read_text())]
    text = json.dumps(places, ensure_ascii=False, separators=(",", ":"))
    Path(app.outdir, "searchtexts.js").write_text(f"const PLACES = {text};\n", "utf-8")


def bring_template(app, config):
    """Put our search page before the theme's."""
    config.templates_path = [*config.templates_path, str(Path(__file__).with_name("templates"))]


def setup(app):
    """Register with Sphinx; the template of the search page brings the scripts."""
    app.connect("config-inited", bring_template)
    app.connect("doctree-resolved", leave_texts, priority=900)
    app.connect("build-finished", gather_texts)
    # A change of this file rewrites every page.
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    app.add_config_value("search_source", source, "html", str)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

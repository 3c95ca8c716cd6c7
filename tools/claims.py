"""A Sphinx extension: what the cells checked is numbered, can be cited, and is listed.

``check`` prints "✓ a sentence" and under it the estimates whose intervals it compared. On the page
of a chapter such lines are a box, each claim with a number (11.3) and a place of its own,
``#claim-<chapter>-<cell>-<count>``. That name is a label, too: ``{ref}`` writes "Claim 11.3". The
directive ``{claims}`` lists the claims of all chapters. Exercises have their numbers in their
headings; for their labels ``{ref}`` writes "Exercise 11.2". Figures and equations are counted in
the same way.
"""

import hashlib
import json
import re
from itertools import count, cycle, groupby
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

CHAPTER = re.compile(r"notebooks/(\d+)_(\w+)")
ESTIMATE = re.compile(
    r"  (?:(?:smallest|largest) of \d+: )?\S+"
    r"(?:, the same in all \d+| ± \S+, (?:joint )?95 % interval (\S+) to ([^\s,]+),? .*n = \d+)"
)
logger = logging.getLogger(__name__)


class Claim(NamedTuple):
    """What one check of a cell printed, and where it stands."""

    section: str
    number: str
    label: str
    words: str
    estimates: list[str]

    @property
    def intervals(self) -> list[tuple[float, float]]:
        ends = [ESTIMATE.fullmatch(line).groups() for line in self.estimates]
        return [(float(low), float(high)) for low, high in ends if low]


def parts(printed):
    """Split what a cell printed: texts, and claims as pairs of their words and estimates."""
    found = [""]
    for line in printed.splitlines(keepends=True):
        if line.startswith("✓ "):
            found += [(line[2:].strip(), []), ""]
        elif found[-1] == "" and len(found) > 1 and ESTIMATE.fullmatch(line.rstrip("\n")):
            found[-2][1].append(line.rstrip("\n"))
        else:
            found[-1] += line
    return [part for part in found if isinstance(part, tuple) or part.strip()]


def item(claim, mark="", **link):
    """One line of a list of claims: its number, a link; its words and its estimates."""
    number = nodes.paragraph("", mark, nodes.reference("", claim.number, internal=True, **link))
    kinds = cycle([nodes.Text, lambda code: nodes.literal(code, code)])
    words = [kind(part) for kind, part in zip(kinds, claim.words.split("`"), strict=False)]
    lines = [re.sub(r"-(?=\d)", "−", line.strip()) for line in claim.estimates]
    whole = [re.sub(r" (?=[±=%])|(?<=[±=]) ", "\u00a0", line) for line in lines]
    estimates = [nodes.paragraph("", line, classes=["estimate"]) for line in whole]
    return nodes.list_item("", number, nodes.paragraph("", "", *words), *estimates)


def box(claims):
    """Return claims that stand one after the other as a box."""
    lines = nodes.bullet_list()
    for claim in claims:
        lines += item(claim, "✓ ", refid=claim.label)
        lines[-1]["ids"].append(claim.label)
    title = nodes.title("", "Claim checked" if len(claims) == 1 else "Claims checked")
    return nodes.admonition("", title, lines, classes=["claim"])


def text(block, printed):
    """Return printed text as the block that it comes from had it."""
    part = block.copy()
    part.rawsource = printed.strip("\n")
    part += nodes.Text(part.rawsource)
    return part


def number_claims(app, doctree):
    """Make boxes of what the checks of a chapter printed, and note the claims."""
    docname, claims = app.env.docname, []
    if chapter := CHAPTER.fullmatch(docname):
        source = json.loads(Path(app.env.doc2path(docname)).read_text("utf-8"))
        numbers = (f"{int(chapter[1])}.{n}" for n in count(1))
        for cell in doctree.findall(lambda node: "cell_index" in getattr(node, "attributes", ())):
            name = source["cells"][cell["cell_index"]]["id"]
            labels = (f"claim-{chapter[2]}-{name}-{n}".replace("_", "-") for n in count(1))
            printed = [b for b in cell.findall(nodes.literal_block) if "stream" in b["classes"]]
            for block in printed:
                claims += number_block(block, title(cell), numbers, labels)
    note(app.env, docname, claims)


def title(node):
    """Return the heading under which a node stands."""
    while not isinstance(node, nodes.section):
        node = node.parent
    return node[0].astext()


def number_block(block, section, numbers, labels):
    """Put boxes in the place of the claims of one printed block; return the claims."""
    claims, instead = [], []
    for checked, run in groupby(parts(block.astext()), lambda part: isinstance(part, tuple)):
        if checked:
            here = [Claim(section, next(numbers), next(labels), *part) for part in run]
            claims += here
            instead.append(box(here))
        else:
            instead += [text(block, printed) for printed in run]
    if claims:
        block["classes"] = []  # what stands in the place of a node inherits its classes
        block.replace_self(instead)
    return claims


def note(env, docname, claims):
    """Keep the claims of a page, and make labels of their names and of its exercises."""
    env.claims = {**getattr(env, "claims", {}), docname: claims}
    std, words = env.get_domain("std"), [claim.words for claim in claims]
    labels = std.labels
    for place, claim in enumerate(claims):
        labels[claim.label] = docname, claim.label, f"Claim {claim.number}"
        std.anonlabels[claim.label] = docname, claim.label  # for links with words of their own
        if claim.words in words[:place]:
            logger.warning("two claims say: %s", claim.words, location=docname)
    for name, (page, anchor, heading) in list(labels.items()):
        if page == docname and (exercise := re.match(r"Exercise \d+\.\d+", heading)):
            labels[name] = page, anchor, exercise[0]


def count_in_chapters(app, builder):
    """Call a figure 11.2 and an equation (11.3) where Sphinx counts through the whole book.

    What Sphinx has stored stays as it was: it compares that with its next count, to know which
    pages it has to write again.
    """
    for page, kinds in app.env.toc_fignumbers.items():
        chapter = [int(found[1]) for found in [CHAPTER.fullmatch(page)] if found]
        for kind, numbers in kinds.items():
            kinds[kind] = {name: (*chapter, n) for n, name in enumerate(numbers, start=1)}


def forget(app, env, docname):
    """A page that is read again, or gone, has no claims."""
    getattr(env, "claims", {}).pop(docname, None)


def merge(app, env, docnames, other):
    """Take over what a parallel process has read."""
    theirs = getattr(other, "claims", {})
    read = {page: theirs[page] for page in docnames if page in theirs}
    env.claims = {**getattr(env, "claims", {}), **read}
    env.claims_pages = {*getattr(env, "claims_pages", ()), *getattr(other, "claims_pages", ())}


# All claims -------------------------------------------------------------------------------


class all_claims(nodes.General, nodes.Element):
    """Where the list will stand."""


class AllClaims(SphinxDirective):
    """``{claims}``: the claims of all chapters."""

    def run(self):
        self.env.claims_pages = {*getattr(self.env, "claims_pages", ()), self.env.docname}
        return [all_claims()]


def changed(app, env):
    """Return the pages with the list, if a claim or the title of a chapter has changed."""
    listed = {page: (env.titles[page].astext(), env.claims[page]) for page in chapters(env)}
    before, env.claims_listed = getattr(env, "claims_listed", listed), listed
    return sorted(getattr(env, "claims_pages", ())) if listed != before else []


def chapters(env):
    """The pages with claims, in order."""
    return sorted(page for page, claims in getattr(env, "claims", {}).items() if claims)


def list_claims(app, doctree, docname):
    """Put the list where the directive stands, and before it links to its chapters."""
    for place in list(doctree.findall(all_claims)):
        pages = {page: app.builder.get_relative_uri(docname, page) for page in chapters(app.env)}
        every = [chapter(app.env, page, address) for page, address in pages.items()]
        contents = nodes.bullet_list()
        for each in every:
            link = nodes.reference("", each[0].astext(), refid=each["ids"][0], internal=True)
            contents += nodes.list_item("", nodes.paragraph("", "", link))
        place.replace_self([summary(app.env), contents, *every])


def summary(env):
    """Say how many claims there are, and how many of each kind."""
    claims = [claim for page in chapters(env) for claim in env.claims[page]]
    intervals = [claim.intervals for claim in claims if claim.intervals]
    with_0 = sum(any(low < 0 < high for low, high in each) for each in intervals)
    said = (
        f"There are {len(claims)} claims. {len(intervals)} of them compare intervals, and in "
        f"{with_0} of these an interval contains 0."
    )
    return nodes.paragraph("", said)


def chapter(env, page, address):
    """Return the claims of one chapter, under its title and those of its sections."""
    slug = CHAPTER.fullmatch(page)[2]
    words = env.titles[page].astext()
    link = nodes.reference("", words, refuri=address, internal=True)
    new = nodes.section("", ids=[f"claims-{slug}".replace("_", "-")])
    new += nodes.title("", "", link)
    for section, claims in groupby(env.claims[page], lambda claim: claim.section):
        lines = [item(claim, refuri=f"{address}#{claim.label}") for claim in claims]
        new += [nodes.rubric("", section)] if section != words else []
        new += nodes.bullet_list("", *lines, classes=["claims"])
    return new


def setup(app):
    """Register with Sphinx."""
    app.add_directive("claims", AllClaims)
    app.connect("doctree-read", number_claims)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", changed)
    app.connect("write-started", count_in_chapters)
    app.connect("doctree-resolved", list_claims)
    # A change of this file reads every page again.
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    app.add_config_value("claims_source", source, "env", str)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

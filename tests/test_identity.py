"""The book's own look: its boxes, folds, title page and logo, and the way from page to page."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document
from test_browser import contrast

from tools import boxes

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "book" / "_static"
CHAPTER = "notebooks/11_dropout_in_networks.html"
KINDS = {  # its selector: its colour, the words that name it
    ".predict": ("predict", "Predict"),
    ".hurts": ("hurts", "When it hurts"),
    ".in-d2l": ("in-d2l", "In D2L"),
    ".claim": ("claim", "Claims checked"),
    ".solution": ("note", "Solution"),
}

# The colours of a box as they are painted, its icon, and its words.
PAINTED = """([kind, colour]) => {
  const box = document.querySelector(kind);
  const title = box.querySelector(":scope > :is(.admonition-title, h2)");
  const icon = getComputedStyle(title, "::after"), style = getComputedStyle(title);
  const over = (...colours) => {
    const pen = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
      .getContext("2d");
    for (pen.fillStyle of colours) pen.fillRect(0, 0, 1, 1);
    return `rgb(${[...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)})`;
  };
  const page = getComputedStyle(document.body).backgroundColor;
  const variable = getComputedStyle(document.documentElement).getPropertyValue("--" + colour);
  return {
    words: title.firstChild.textContent,
    icon: icon.maskImage,
    edge: over(page, getComputedStyle(box).borderLeftColor),
    named: over(page, variable),
    page: over(page),
    title: over(page, style.backgroundColor),
    drawn: over(page, style.backgroundColor, icon.backgroundColor),
    text: over(page, style.backgroundColor, style.color),
  };
}"""


def cells(notebook):
    return json.loads(notebook.read_text("utf-8"))["cells"]


def words(cell):
    return "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""


def chapters():
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module", params=["light", "dark"])
def chapter(request, browser, html):
    """A chapter with boxes of every kind."""
    context = browser.new_context(color_scheme=request.param)
    page = context.new_page()
    page.goto((html / CHAPTER).as_uri())
    yield page
    context.close()


# --- boxes -----------------------------------------------------------------------------------


def test_the_kinds_of_boxes_differ_in_colour_icon_and_word(chapter):
    seen = {kind: chapter.evaluate(PAINTED, [kind, c]) for kind, (c, _) in KINDS.items()}
    assert {kind: box["words"] for kind, box in seen.items()} == {
        kind: words for kind, (_, words) in KINDS.items()
    }
    assert all(box["edge"] == box["drawn"] == box["named"] for box in seen.values())
    for what in ("edge", "icon"):
        assert len({box[what] for box in seen.values()}) == len(KINDS)
    assert all("data:image/svg" in box["icon"] for box in seen.values())


def pale(box):
    """What of a box can't be told well from its ground: words need 4.5, drawings 3."""
    needed = {("text", "title"): 4.5, ("edge", "page"): 3, ("drawn", "title"): 3}
    return [pair for pair, least in needed.items() if contrast(*map(box.get, pair)) < least]


def test_boxes_are_seen_in_light_and_dark(chapter):
    for kind, (colour, _) in KINDS.items():
        assert pale(chapter.evaluate(PAINTED, [kind, colour])) == [], kind


def test_a_pale_box_is_noticed(chapter):
    style = chapter.add_style_tag(content=".predict { --kind: #888a !important }")
    box = chapter.evaluate(PAINTED, [".predict", "predict"])
    assert box["edge"] != box["named"] and ("drawn", "title") in pale(box)
    style.evaluate("style => style.textContent = '.predict > * { color: #888 !important }'")
    assert ("text", "title") in pale(chapter.evaluate(PAINTED, [".predict", "predict"]))
    style.evaluate("style => style.remove()")


@pytest.mark.parametrize("notebook", chapters(), ids=lambda path: path.stem)
def test_every_such_section_of_a_chapter_is_a_box(notebook, html):
    source = "\n".join(words(cell) for cell in cells(notebook))
    page = (html / "notebooks" / f"{notebook.stem}.html").read_text("utf-8")
    for name, kind in boxes.SECTIONS.items():
        written = len(re.findall(rf"^## {name}", source, re.M))
        assert len(re.findall(f'<section class="admonition {kind}"', page)) == written
    assert len(re.findall(r'class="predict admonition"', page)) == source.count(":class: predict")
    assert page.count('<details class="admonition solution">') == source.count("{admonition} Solu")


def test_every_chapter_says_when_it_hurts_and_most_what_d2l_does(html):
    pages = [path.read_text("utf-8") for path in sorted(html.glob("notebooks/*.html"))[1:]]
    assert all('<section class="admonition hurts"' in page for page in pages)
    assert sum('<section class="admonition in-d2l"' in page for page in pages) > 5


def boxed(*parts, title="Exercises"):
    """A section of these parts as the extension leaves it."""
    section = nodes.section("", nodes.title(title, title), *parts)
    document = new_document("page")
    document += section
    boxes.box(None, document)
    return section


def cell(mode="all"):
    return nodes.container(hide_mode=mode)


def drop(title="Solution"):
    return nodes.admonition("", nodes.title("", title), nodes.paragraph(), classes=["dropdown"])


def kinds(section):
    """The nodes of a section after its title, in letters: folds open, shut, and what is between."""
    letters = {nodes.container: "c", nodes.paragraph: "p", nodes.admonition: "a"}
    return "".join(
        "(" if "<details" in node.astext() else letters.get(type(node), ")") for node in section[1:]
    )


def test_cells_and_words_of_a_solution_are_one_fold():
    section = boxed(nodes.paragraph(), cell(), cell(), drop(), nodes.paragraph(), drop("A < B"))
    assert kinds(section) == "p(ccp)p(p)"
    assert all(node["hide_mode"] is None for node in section.findall(nodes.container))
    assert "Solution</summary>" in section[2].astext() and "A &lt; B" in section[-3].astext()


def test_what_is_no_solution_is_left_alone():
    section = boxed(cell(), nodes.paragraph(), cell("input"), nodes.admonition())
    assert kinds(section) == "cpca" and section[1]["hide_mode"] == "all"
    assert kinds(boxed(drop(), drop())) == "(p)(p)"


def test_only_the_title_as_written_makes_a_box():
    assert boxed(title="When it hurts: units")["classes"] == ["admonition", "hurts"]
    assert boxed(title="In D2L")["classes"] == ["admonition", "in-d2l"]
    assert boxed(title="What hurts")["classes"] == []
    translated = nodes.section("", nodes.title("In D2L", "Bei D2L"))
    boxes.mark(translated)
    assert translated["classes"] == ["admonition", "in-d2l"]


# --- folds -----------------------------------------------------------------------------------


def test_a_solution_is_hidden_until_it_is_asked_for_by_mouse_or_key(browser, html):
    for options in ({}, {"java_script_enabled": False}):
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto((html / CHAPTER).as_uri())
        for number, fold in enumerate(page.locator("details.solution").all()[:2]):
            inside = [fold.locator(part).first for part in (":scope > p, :scope > div > p", "pre")]
            assert not any(part.is_visible() for part in inside)
            title = fold.locator("summary")
            title.press("Enter") if number else title.click()
            assert fold.locator("p").last.is_visible() and fold.locator("pre").first.is_visible()
        context.close()


def test_a_link_into_a_solution_opens_it(browser, html):
    context = browser.new_context()
    page = context.new_page()
    page.goto((html / CHAPTER).as_uri())
    page.evaluate("document.querySelector('details.solution p').id = 'inside'")
    page.evaluate("location.hash = '#inside'")
    page.wait_for_function("document.querySelector('details.solution').open")
    context.close()


# --- title page and logo ---------------------------------------------------------------------


def test_the_title_page_has_its_logo_promise_doors_and_figure(browser, html):
    for width, height in ((1280, 800), (390, 844)):
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.goto((html / "index.html").as_uri())
        page.wait_for_url("**/00_welcome.html")
        assert page.locator("h1").all_inner_texts()[-1].strip("\n#") == "Regularization, Measured"
        logo = page.locator(".navbar-brand img").first
        drawn = page.evaluate(
            "getComputedStyle(document.querySelector('.bd-article h1'), '::before').backgroundImage"
        )
        assert logo.is_visible() != ("logo.svg" in drawn)
        promise = page.locator(".bd-article h1 + p strong")
        assert promise.is_visible() and promise.bounding_box()["y"] < height
        doors = page.locator(".bd-article h1 ~ ul > li")
        assert doors.evaluate_all("doors => doors.map(d => d.innerText.split('.')[0])") == [
            "Read",
            "Run",
            "Teach",
            "Check",
        ]
        assert all(door.locator("a").count() for door in doors.all())
        assert doors.last.bounding_box()["y"] < height
        assert page.locator(".bd-article figure img").first.get_attribute("alt")
        context.close()


GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}


def faint(svg):
    """The colours of a drawing that don't stand out from a light or a dark page."""
    drawn = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    as_rgb = {c: f"rgb({', '.join(str(int(c[i : i + 2], 16)) for i in (1, 3, 5))})" for c in drawn}
    assert drawn
    return {c for c in drawn for ground in GROUNDS.values() if contrast(as_rgb[c], ground) < 3}


@pytest.mark.parametrize("name", ["logo.svg", "favicon.svg"])
def test_the_logo_stands_out_from_light_and_dark_pages(name):
    assert faint((STATIC / name).read_text("utf-8")) == set()


def test_a_faint_logo_is_noticed(chapter):
    assert faint('<path fill="#dddddd"/><path stroke="#222222"/>') == {"#dddddd", "#222222"}
    ground = chapter.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground in GROUNDS.values()


# --- from page to page -----------------------------------------------------------------------


LINK = r'class="{}"\s+href="(.*?)".*?prev-next-title">(.*?)</p>'


def links(page):
    """Where previous and next lead, and the words they say: None where there is none."""
    found = [re.search(LINK.format(side), page, re.S) for side in ("left-prev", "right-next")]
    return [link and (link[1], re.sub("<.*?>", "", link[2])) for link in found]


def title(page):
    *_, h1 = re.findall(r'<h1>(.*)<a class="headerlink', page)
    return re.sub("<.*?>", "", h1)


def order():
    """The pages in the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *files]


def test_previous_and_next_follow_the_contents_by_their_titles(html):
    files = [html / f"{name}.html" for name in order()]
    pages = [file.read_text("utf-8") for file in files]
    for i, file in enumerate(files):
        expected = [
            (os.path.relpath(files[j], file.parent), title(pages[j]))
            if 0 <= j < len(files)
            else None
            for j in (i - 1, i + 1)
        ]
        assert links(pages[i]) == expected, file.name


def test_a_page_that_leads_elsewhere_is_noticed(html):
    page = (html / CHAPTER).read_text("utf-8")
    before, after = links(page)
    assert links(page.replace(after[0], before[0]))[1] == (before[0], after[1])
    assert links(page.replace('class="left-prev"', "")) == [None, after]

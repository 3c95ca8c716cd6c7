"""Works for study: search, copy buttons, downloads, and the buttons that launch a notebook."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, unquote, urldefrag, urlparse

import pytest
import yaml
from docutils import nodes
from nbclient import NotebookClient
from test_book import make, notebook, small_book
from test_browser import DESKTOP, PHONE, Eye, dead_links

from grader.release import TELLING, leaks, squeezed
from tools.editions import INSTALL, install_cell, launch_from_a_repository, student
from tools.notebooks import read, text
from tools.search import entry, formula, said, sections

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Search ---------------------------------------------------------------------------------------

FIRST = {  # what a reader looks for: where it is taught
    "dropout": "notebooks/10_dropout_by_hand.html",
    "weight decay": "notebooks/07_weight_decay.html",
    "weight_decay": "notebooks/07_weight_decay.html",
    "L1": "notebooks/05_l1.html",
    "early stopping": "notebooks/03_holding_out.html",
    "label smoothing": "notebooks/14_other_regularizers.html",
    "AdamW": "notebooks/09_adam_and_adamw.html",
    "checkup": "notebooks/16_myths_and_bugs.html",
    "memorization": "notebooks/02_memorisation.html",
    "Double Descent": "notebooks/02_memorisation.html",
    "丢弃法": "book/glossary.html#term-dropout",
    "权重衰减": "book/glossary.html#term-weight-decay",
    "过拟合": "book/glossary.html#term-overfitting",
    "早停": "book/glossary.html#term-early-stopping",
    "L1正则化": "book/glossary.html#term-L1-penalty",
}


def search(eye, home, query):
    """[(address, its words, the words below)] that the search page shows for a query."""
    eye.page.goto(f"{home}search.html?q={quote(query)}")
    eye.page.wait_for_selector("#search-results p.search-summary")
    items = eye.page.locator("#search-results li").all()
    return [
        (
            item.locator("a").first.get_attribute("href"),
            item.locator("a").first.inner_text(),
            item.locator("p").inner_text(),
        )
        for item in items
    ]


@pytest.fixture(scope="module")
def home(html):
    return f"{html.as_uri()}/"


@pytest.fixture(scope="module")
def results(browser, home):
    """{query: what is found}, and the window in which it was asked."""
    eye = Eye(browser, **DESKTOP)
    yield {query: search(eye, home, query) for query in FIRST}, eye
    eye.context.close()


def test_each_query_finds_its_chapter_or_its_entry_first(results):
    assert {query: found[0][0] for query, found in results[0].items()} == FIRST


def test_a_search_from_disk_asks_no_other_host_and_complains_of_nothing(results, home):
    assert results[1].elsewhere(home) == [] and results[1].problems == []


def test_a_chinese_word_leads_on_to_the_chapter(results):
    pages = [address for address, *_ in results[0]["丢弃法"]]
    assert FIRST["dropout"] in pages[:3]


def test_a_snippet_is_the_text_and_has_the_word(results):
    for query, found in results[0].items():
        below = [words for *_, words in found[:5]]
        assert not [w for w in below if re.search(r"\\[a-z]+|Toggle|Contents|Ctrl|Copy", w)]
        first = re.sub(r"[\s_]", "", "".join(found[0])).lower().replace("z", "s")
        assert re.sub(r"[\s_]", "", query).lower().replace("z", "s")[:8] in first


def test_what_is_found_is_there(results, html):
    addresses = {address for found in results[0].values() for address, *_ in found}
    links = [f"{html.as_uri()}/{address}" for address in addresses]
    pages = {urldefrag(address).url for address in addresses}
    ids = {p: set(re.findall(r'\bid="([^"]*)"', (html / p).read_text("utf-8"))) for p in pages}
    assert dead_links(links, html, ids) == [] and len(links) > 50


def test_every_chinese_word_of_the_glossary_is_known(browser, home):
    eye = Eye(browser)
    search(eye, home, "risk")
    known = eye.page.evaluate("PLACES.filter(p => p.term).flatMap(p => p.chinese)")
    source = (ROOT / "book/glossary.md").read_text("utf-8")
    written_down = re.findall(r"\[([^\]]+)\]\{\.language-zh\}", source)
    assert sorted(known) == sorted("、".join(written_down).split("、")) and len(known) > 90
    eye.context.close()


def test_a_query_without_a_result_says_so(browser, home):
    eye = Eye(browser)
    assert search(eye, home, "quetzal <b>") == []
    assert "Nothing found for “quetzal <b>”" in eye.page.inner_text("#search-results")
    eye.context.close()


def test_a_reader_searches_from_a_chapter_on_a_phone(browser, server):
    eye = Eye(browser, **PHONE)
    eye.page.goto(f"{server}notebooks/04_l2.html")
    eye.page.locator(".search-button").locator("visible=true").click()
    eye.page.keyboard.type("dropout")
    eye.page.keyboard.press("Enter")
    first = eye.page.locator("#search-results li a").first
    assert first.get_attribute("href") == FIRST["dropout"]
    first.click()
    eye.page.wait_for_url(f"**/{FIRST['dropout']}")
    assert eye.problems == [] and eye.elsewhere(server) == []
    eye.context.close()


@pytest.mark.parametrize("view", ["light", "dark", "phone"])
def test_axe_finds_nothing_among_the_results(browser, home, view):
    options = PHONE if view == "phone" else {**DESKTOP, "color_scheme": view}
    eye = Eye(browser, **options)
    search(eye, home, "dropout")
    assert eye.axe() == [] and eye.facts().tooWide <= 0
    eye.context.close()


def test_another_order_is_noticed(browser, server, html):
    """Without what the glossary says, the longest chapter on dropout comes first."""
    eye = Eye(browser)
    texts = re.sub(r'"taught":"[^"]*"', '"taught":""', (html / "searchtexts.js").read_text("utf-8"))
    eye.page.route("**/searchtexts.js", lambda route: route.fulfill(body=texts))
    assert search(eye, server, "dropout")[0][0] != FIRST["dropout"]
    eye.context.close()


def test_a_formula_is_one_line_of_text():
    assert formula(r"\frac{\lambda}{2} \lVert w \rVert^2") == "λ/2∥w∥^2"
    assert formula(r"\sqrt{n}") == "√n" and formula(r"\wrong") == r"\wrong"
    paragraph = nodes.paragraph("", "add ", nodes.math("", r"\lambda"), nodes.raw("", "<i>"))
    assert said(paragraph) == "add λ"


def test_a_page_is_cut_into_its_sections():
    title, below = nodes.title("", "Upper"), nodes.title("", "Lower")
    code = nodes.literal_block("", "def spin(speed=2):\n    wheel = turn(speed)")
    lower = nodes.section("", below, nodes.paragraph("", "words"), code, ids=["lower"])
    upper = nodes.section("", title, nodes.paragraph("", "turn"), lower, ids=["upper"])
    first, second = sections(nodes.section("", *[upper], ids=["all"]).children[0])
    assert (first["id"], first["title"], first["text"]) == ("upper", "Upper", "turn")
    assert (second["text"], second["code"]) == ("words", ["speed", "spin"])


def test_an_entry_knows_its_chapter():
    link = nodes.reference("", "there", refuri="../notebooks/x.html#ch-x")
    name = nodes.inline("", "甲、乙", classes=["language-zh"])
    node = nodes.definition_list_item("", nodes.paragraph("", "", name, link))
    found = entry({"node": node, "title": "thing"}, "book/glossary.html")
    assert found["chinese"] == ["甲", "乙"] and found["taught"] == "notebooks/x.html"


# Copy buttons -----------------------------------------------------------------------------------

COPY = """() => ({
  without: [...document.querySelectorAll(".cell_input pre")]
    .filter(pre => !pre.parentElement.querySelector("button.copybtn")).length,
  inputs: document.querySelectorAll(".cell_input pre").length,
  onOutputs: document.querySelectorAll(".cell_output button.copybtn").length,
})"""


@pytest.mark.parametrize("from_disk", [True, False])
def test_every_code_cell_can_be_copied_by_the_keyboard(browser, home, server, from_disk):
    eye = Eye(browser, **DESKTOP)
    eye.page.goto(f"{home if from_disk else server}notebooks/04_l2.html")
    eye.page.wait_for_selector("button.copybtn", state="attached")
    found = eye.page.evaluate(COPY)
    assert found["inputs"] > 20 and found["without"] == 0 and found["onOutputs"] == 0
    button = eye.page.get_by_role("button", name="Copy to clipboard").first
    button.focus()
    seen = "e => getComputedStyle(e).opacity > 0.9"
    eye.page.wait_for_function(seen, arg=button.element_handle())
    eye.page.keyboard.press("Enter")
    eye.page.wait_for_selector("button.copybtn.success")
    eye.page.evaluate("document.body.append(document.createElement('textarea'))")
    eye.page.locator("textarea").focus()
    eye.page.keyboard.press("Control+V")
    shown = eye.page.locator(".cell_input pre").first.inner_text()
    assert eye.page.locator("textarea").input_value().strip() == shown.strip()
    assert eye.problems == []
    eye.context.close()


def test_a_cell_without_a_button_and_a_button_on_an_output_are_noticed(browser, home):
    eye = Eye(browser)
    eye.page.goto(f"{home}notebooks/04_l2.html")
    eye.page.wait_for_selector("button.copybtn", state="attached")
    eye.page.evaluate("""() => document.querySelector(".cell_output")
        .append(document.querySelector("button.copybtn"))""")
    assert eye.page.evaluate(COPY)["without"] == eye.page.evaluate(COPY)["onOutputs"] == 1
    eye.context.close()


# Downloads --------------------------------------------------------------------------------------


def downloads(page):
    """The files that a page's menu of downloads leads to."""
    menu = re.search(r'(?s)dropdown-download-buttons.*?</ul>', page.read_text("utf-8"))
    links = re.findall(r'<a href="([^"#]*)"([^>]*)', menu[0]) if menu else []
    return {(page.parent / unquote(urlparse(link).path)).resolve(): more for link, more in links}


def test_each_chapter_offers_both_editions_and_no_page_a_missing_file(html):
    pages = [page for page in html.rglob("*.html") if page.parent != html]
    for page in pages:
        files = downloads(page)
        assert [f for f in files if not f.is_file()] == [], page
        assert all("download" in more for f, more in files.items() if f.suffix == ".ipynb")
        if page.parent.name == "notebooks":
            short, full = [file for file in files if file.suffix == ".ipynb"]
            assert (short.stem, full.stem) == (f"{page.stem}_student", page.stem)
            assert read(full) == read(ROOT / "notebooks" / full.name)
            assert read(short) == student(read(full))
    assert len(pages) > 25


def test_the_student_edition_is_downloaded_under_its_name(browser, server):
    eye = Eye(browser, **DESKTOP)
    eye.page.goto(f"{server}notebooks/04_l2.html")
    eye.page.get_by_role("button", name="Download this page").click()
    with eye.page.expect_download() as download:
        eye.page.get_by_role("link", name="Student edition").click()
    assert download.value.suggested_filename == "04_l2_student.ipynb"
    eye.context.close()


def secrets(nb):
    """The lines of solutions and of what they put out, that stand nowhere else."""
    solutions = [cell for cell in nb.cells if cell.id.startswith("solution")]
    given = squeezed("\n".join(c.source for c in nb.cells if not c.id.startswith("solution")))
    told = "\n".join(cell.source for cell in solutions)
    told += "\n".join(o.get("text", "") for c in solutions for o in c.get("outputs", []))
    lines = {squeezed(line) for line in told.split("\n")}
    return {line for line in lines if len(line) >= TELLING and line not in given}


def gives_away(nb, edition):
    """What a student edition tells that it should not."""
    found = [f"{c.id} is a solution" for c in edition.cells if c.id.startswith("solution")]
    found += [f"{c.id} has outputs" for c in edition.cells if c.get("outputs")]
    found += [f"{c.id} was run" for c in edition.cells if c.get("execution_count")]
    found += [f"{c.id} has metadata" for c in edition.cells if c.metadata]
    return found + list(leaks(secrets(nb), "edition.ipynb", text(edition).encode()))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_student_edition_gives_nothing_away(path):
    nb = read(path)
    edition = student(nb)
    assert gives_away(nb, edition) == []
    exercises = [cell.id for cell in nb.cells if cell.id.startswith("exercise")]
    answers = [cell.id for cell in edition.cells if cell.id.startswith("answer")]
    assert answers == [name.replace("exercise", "answer") for name in exercises]
    assert path.stem == "00_welcome" or len(secrets(nb)) > 10


def test_what_is_given_away_is_noticed():
    nb = read(ROOT / "notebooks/04_l2.ipynb")
    solution = next(c for c in nb.cells if c.id.startswith("solution") and c.cell_type == "code")
    line = max(secrets(nb), key=len)
    faults = {
        "is a solution": lambda e: e.cells.append(solution),
        "has outputs": lambda e: e.cells[-2].update(outputs=solution.outputs),
        "was run": lambda e: e.cells[-2].update(execution_count=3),
        "has metadata": lambda e: e.cells[0].metadata.update(tags=["hide-cell"]),
        "tells": lambda e: e.cells[0].update(source=line),
        ": tells": lambda e: e.cells[0].metadata.update(note=line),
    }
    for says, fault in faults.items():
        edition = student(nb)
        fault(edition)
        assert any(says in line for line in gives_away(nb, edition)), says


LONG = [pytest.param(p, marks=pytest.mark.long, id=p.stem) for p in CHAPTERS]


@pytest.mark.parametrize("path", [pytest.param(CHAPTERS[13], id="quick"), *LONG])
def test_the_student_edition_runs_to_its_end(path, tmp_path):
    edition = student(read(path))
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(edition, timeout=300, kernel_name="python3", resources=where).execute()
    codes = [cell for cell in edition.cells if cell.cell_type == "code"]
    assert [c.execution_count for c in codes] == list(range(1, len(codes) + 1))


# Launch -----------------------------------------------------------------------------------------


def with_repository(url):
    """The changes that make a small book one with a repository."""
    config = (ROOT / "_config.yml").read_text("utf-8")
    assert 'repository: {url: ""' in config
    return {"_config.yml": config.replace('{url: ""', f'{{url: "{url}"')}


def launches(folder):
    """{name: address} of the buttons that launch, on each page of a built book."""
    found = {}
    for page in (folder / "_build/html").rglob("*.html"):
        menu = re.search(r'(?s)dropdown-launch-buttons.*?</ul>', page.read_text("utf-8"))
        link = r'(?s)<a href="([^"]*)".*?text-container">(\w+)<'
        links = re.findall(link, menu[0]) if menu else []
        found[page.stem] = {name: address.replace("&amp;", "&") for address, name in links}
    return found


def test_without_a_repository_nothing_launches(html):
    assert set(map(str, launches(html.parents[1]).values())) == {"{}"}
    others = "mybinder|colab|jupyterhub|hub.example|executablebooks"
    assert [p for p in html.rglob("*.html") if re.search(others, p.read_text("utf-8"))] == []


def test_with_a_repository_a_notebook_launches(tmp_path):
    small = small_book(tmp_path, with_repository("https://github.com/someone/book"))
    run = make(small, "book")
    assert run.returncode == 0, run.says
    found = launches(small)
    assert found.pop("00_small") == {
        "Binder": "https://mybinder.org/v2/gh/someone/book/main"
        "?urlpath=lab/tree/notebooks/00_small.ipynb",
        "JupyterHub": "https://hub.example.org/hub/user-redirect/git-pull?"
        "repo=https%3A//github.com/someone/book"
        "&urlpath=lab/tree/book/notebooks/00_small.ipynb&branch=main",
        "Colab": "https://colab.research.google.com/github/someone/book/blob/main/"
        "notebooks/00_small.ipynb",
    }
    assert not any(found.values())


def test_colab_opens_notebooks_from_github_alone():
    buttons = {"colab_url": "https://colab", "binderhub_url": "https://binder"}
    options = {"repository_url": "https://gitlab.com/a/b", "launch_buttons": buttons}
    launch_from_a_repository(None, SimpleNamespace(html_theme_options=options))
    assert options["launch_buttons"] == {"binderhub_url": "https://binder"}


# The first cell, for Colab ----------------------------------------------------------------------


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_first_cell_of_a_notebook_installs_the_book(path):
    """With the address that _config.yml has: `python -m tools.editions` writes it."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    assert (first.id, first.source) == ("install", install_cell(config))
    assert first.metadata == {"tags": ["remove-cell"]} and first.outputs == []


def test_the_address_of_the_repository_is_written_into_the_notebooks(tmp_path):
    nb = json.loads(notebook())
    nb["cells"][1] |= {"id": "install", "source": INSTALL.format(address="")}
    address = with_repository("https://github.com/someone/book")
    small = small_book(tmp_path, {**address, "notebooks/00_small.ipynb": json.dumps(nb)})
    subprocess.run([sys.executable, "-m", "tools.editions"], cwd=small, check=True)
    source = read(small / "notebooks/00_small.ipynb").cells[1].source
    assert 'BOOK = "https://github.com/someone/book@main"' in source
    assert source == install_cell(yaml.safe_load(address["_config.yml"]))


BARE = """
import subprocess, sys
asked = []
subprocess.run = lambda command, check: asked.append(command)
exec(sys.argv[1])
print(asked and asked[0][1:])
"""


def run_alone(source, folder):
    """Run the cell where there is no book, with a stand-in for what it starts."""
    command = [sys.executable, "-I", "-S", "-c", BARE, source]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_where_the_book_is_missing_the_cell_installs_it_or_says_what_to_do(tmp_path):
    told = run_alone(INSTALL.format(address=""), tmp_path)
    assert told.returncode == 1
    assert "AssertionError: Install the book, or write the address" in told.stderr
    done = run_alone(INSTALL.format(address="https://github.com/someone/book@main"), tmp_path)
    assert done.returncode == 0, done.stderr
    d2l = re.search(r"^D2L = (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M)[1]
    want = ["-m", "pip", "install", "--quiet", "--no-deps", f"d2l=={d2l}"]
    assert done.stdout.strip() == str([*want, "git+https://github.com/someone/book@main"])


def test_where_the_book_is_installed_the_cell_does_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: asked.append(args))
    exec(INSTALL.format(address="https://github.com/someone/book"), {})
    assert asked == []


def test_an_installed_book_has_all_that_its_notebooks_read():
    """Files that are not code are installed only if pyproject.toml names them."""
    import tomllib

    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    code = "\n".join(c.source for p in CHAPTERS for c in read(p).cells if c.cell_type == "code")
    imported = {"helpers", *re.findall(r"^from (studies)\b", code, re.M)}
    assert imported == {"helpers", "studies"} and imported <= set(setuptools["packages"])
    data = {f.relative_to(ROOT) for name in imported for f in (ROOT / name).glob("*.json")}
    named = {Path(k, f) for k, fs in setuptools.get("package-data", {}).items() for f in fs}
    assert data == named

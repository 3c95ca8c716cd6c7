"""Pages on paper, and the whole book as one PDF."""

import io
import re
import subprocess
import sys
import unicodedata

import pytest
from PIL import Image
from test_book import FORMULAS, make, small_book

from tools import pdf

CODE = '''```{{code-block}} python
{}
```'''
PAGES = {
    "book/one.md": FORMULAS
    + "\n![dots](dots.png)\n\n"
    + CODE.format("x = 1  # " + 78 * "w" + "\n" + 40 * "y = 2\n")
    + "\n\n(here)=\n## Twice\n\n**1. An exercise.** Why?\n\n"
    + "```{admonition} Solution\n:class: dropdown\nBecause of a bright idea.\n```\n",
    "book/two.md": "# Two\n\n## Twice\n\nSee [the idea](#here) and [above](one.md). "
    + "[Elsewhere](https://example.org/x).\n",
}


def words(text):
    """A text without spaces and ligatures."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A small book with what matters on paper, built."""
    folder = small_book(tmp_path_factory.mktemp("paper"), PAGES)
    Image.new("RGB", (60, 30), "red").save(folder / "book" / "dots.png")
    run = make(folder, "book")
    assert run.returncode == 0, run.says
    return folder


@pytest.fixture(scope="module")
def bind(browser, book):
    """A function that makes one document of the book, changes it, and prints it."""

    def bind(change=""):
        page = browser.new_page()
        titles = pdf.bound(page, book)
        page.evaluate(change)
        made = pdf.printed(page, titles)
        page.close()
        return made

    return bind


@pytest.fixture(scope="module")
def whole(bind):
    return bind()


class Print:
    """A PDF as its readers meet it."""

    def __init__(self, made):
        self.reader = pdf.PdfReader(io.BytesIO(made))
        self.text = [page.extract_text() for page in self.reader.pages]
        self.places = pdf.page_numbers(made)

    def resources(self, kind):
        for page in self.reader.pages:
            yield from (o.get_object() for o in page["/Resources"].get(kind, {}).values())

    def pictures(self):
        return sum(o["/Subtype"] == "/Image" for o in self.resources("/XObject"))

    def loose_fonts(self):
        """The fonts that a reader without them would replace."""
        fonts = [f.get("/DescendantFonts", [f])[0].get_object() for f in self.resources("/Font")]
        return [
            font["/BaseFont"]
            for font in fonts
            if font["/Subtype"] != "/Type3"
            and not any("FontFile" in key for key in font["/FontDescriptor"])
        ]

    def blank(self):
        """The pages with nothing but a running title and a number."""
        full = (len(text.splitlines()) > 2 for text in self.text)
        drawn = ("/XObject" in page["/Resources"] for page in self.reader.pages)
        either = enumerate(zip(full, drawn, strict=True), 1)
        return [n for n, (has_text, has_pictures) in either if not (has_text or has_pictures)]

    def wrong_numbers(self, titles):
        """Chapters that do not begin where the contents say that they do."""
        first = min(page for name, page in self.places.items() if name.startswith("page-"))
        contents = words("".join(self.text[1 : first - 1]))
        wrong = []
        for i, title in enumerate(titles):
            page = self.places.get(f"page-{i}", 0)
            running_and_heading = words(self.text[page - 1]).count(words(title)) >= 2
            if not running_and_heading or f"{words(title)}{page}" not in contents:
                wrong.append((title, page))
        return wrong


def test_the_small_book_is_all_there(whole):
    seen = Print(whole)
    assert seen.wrong_numbers(["Small", "One", "Two", "Solutions and folded code"]) == []
    assert "Regularization" in seen.text[0] and "Contents" in seen.text[1].split()
    assert seen.pictures() == 1
    assert seen.loose_fonts() == [] and seen.blank() == []
    for number in range(2, len(seen.text) + 1):
        assert str(number) in seen.text[number - 1].split()


def test_formulas_are_letters_in_the_fonts_of_formulas(whole):
    seen = Print(whole)
    fonts = {str(font["/BaseFont"]) for font in seen.resources("/Font") if "/BaseFont" in font}
    assert any("KaTeX_Math" in font for font in fonts)
    page = words(seen.text[seen.places["page-1"] - 1])
    assert "(1)" in page and "λ" in page


def test_bookmarks_and_tags_are_there(whole):
    seen = Print(whole)
    marks = [mark.title for mark in seen.reader.outline if not isinstance(mark, list)]
    assert marks == ["Contents", "Small", "One", "Two", "Solutions and folded code"]
    assert [mark.title for mark in seen.reader.outline[3]] == ["Twice"]
    assert seen.reader.trailer["/Root"]["/MarkInfo"]["/Marked"]
    assert seen.reader.metadata.title == "Regularization, Measured"


def test_a_solution_stands_at_the_end_and_the_exercise_says_where(whole):
    seen = Print(whole)
    end = seen.places["page-3"]
    where = [n for n, text in enumerate(seen.text, 1) if "bright idea" in text]
    assert where == [end] == [seen.places["unfolded-1"]]
    place = seen.text[seen.places["folded-1"] - 1]
    assert f"Solution on page {end}" in " ".join(place.split())
    assert "1. An exercise." in seen.text[end - 1]


def links(seen):
    for page in seen.reader.pages:
        for note in page.get("/Annots", []):
            yield note.get_object()


def test_links_stay_in_the_book(whole):
    seen = Print(whole)
    addresses = [note["/A"]["/URI"] for note in links(seen) if "/URI" in note.get("/A", {})]
    assert addresses == ["https://example.org/x"]
    names = {str(n["/Dest"]).lstrip("/") for n in links(seen) if "/Dest" in n}
    assert names <= set(seen.places) and {"here", "page-1"} <= names
    assert len([e for e in seen.places if e.startswith("page-")]) == 4


def test_long_lines_of_code_are_whole(whole):
    assert 78 * "w" in words("".join(Print(whole).text))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("document.querySelectorAll('.bd-article img').forEach(e => e.remove())", "pictures"),
        ("document.querySelector('.book-contents').lastChild.remove()", "numbers"),
        (
            "document.querySelector('#page-2').insertAdjacentHTML('afterbegin',"
            " '<div style=\"break-after: page\">late</div>')",
            "numbers",
        ),
        (
            "document.querySelector('.bd-article-container').insertAdjacentHTML('beforeend',"
            " '<div style=\"break-before: page; height: 1em\"></div>')",
            "blank",
        ),
    ],
)
def test_a_fault_in_a_pdf_is_noticed(bind, change, fault):
    seen = Print(bind(change))
    found = {
        "pictures": seen.pictures() != 1,
        "numbers": seen.wrong_numbers(["Small", "One", "Two", "Solutions and folded code"]),
        "blank": seen.blank(),
    }
    assert found[fault]


def test_page_numbers_that_move_the_pages_are_refused(bind):
    grows = """document.head.insertAdjacentHTML("beforeend",
      "<style>.page-number:not(:empty) { display: block; height: 200mm }</style>")"""
    with pytest.raises(RuntimeError, match="move the pages"):
        bind(grows)


def test_a_missing_picture_or_page_is_named(browser, book):
    picture, page = book / "_build/html/_images", book / "_build/html/book/two.html"
    for thing, message in [(picture, "no picture at .*webp"), (page, "two.html")]:
        away = thing.with_name("away")
        thing.rename(away)
        with pytest.raises(pdf.Error, match=message):
            pdf.bound(browser.new_page(), book)
        away.rename(thing)


def test_without_chromium_there_is_advice_and_no_pdf(book):
    nowhere = {"PATH": "", "PLAYWRIGHT_BROWSERS_PATH": str(book / "none"), "PYTHONPATH": str(book)}
    run = subprocess.run(
        [sys.executable, "-m", "tools.pdf"], cwd=book, env=nowhere, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "There is no PDF: there is no Chromium: install your system's package" in run.stderr
    assert not (book / "_build/book.pdf").exists()


# --- one page on paper -----------------------------------------------------------------------


def paper(browser, address, before="", **options):
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(address)
    page.evaluate(before)
    made = Print(page.pdf(prefer_css_page_size=True, print_background=True))
    context.close()
    return made


def test_a_page_prints_what_is_open(browser, book):
    one = (book / "_build/html/book/one.html").as_uri()
    closed = paper(browser, one)
    opened = paper(browser, one, "document.querySelectorAll('summary').forEach(e => e.click())")
    assert "bright idea" not in "".join(closed.text) and "Solution" not in "".join(closed.text)
    assert "bright idea" in "".join(opened.text)
    assert closed.text[0].split().count("One") == 1
    assert "Contents" not in closed.text[0] and closed.pictures() == 1


def test_a_dark_page_prints_light(browser, book):
    one = (book / "_build/html/book/one.html").as_uri()
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(one)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    context.close()


# --- the whole book --------------------------------------------------------------------------


@pytest.mark.long
def test_the_whole_book_prints(browser, html):
    root = html.parents[1]
    page = browser.new_page()
    page.set_default_timeout(300_000)
    headings = pdf.bound(page, root)
    titles, figures = page.evaluate("""() => [
      [...document.querySelectorAll("article h1")].map(e => e.innerText),
      document.querySelectorAll("article img:not([src$='.svg'])").length,
    ]""")
    seen = Print(pdf.printed(page, headings))
    page.close()
    assert len(titles) > 25 and figures > 60
    assert 300 < len(seen.text) < 700
    assert seen.wrong_numbers(titles) == []
    assert seen.pictures() == figures
    assert seen.loose_fonts() == [] and seen.blank() == []

"""``make pdf``: the finished pages as one PDF, printed by Chromium.

The pages become one document, in the order of _toc.yml. It is printed twice: the first printing
tells on which page each chapter begins, the second one says so in its table of contents.
"""

import io
import os
import sys
import tomllib
from pathlib import Path

import yaml
from playwright.sync_api import Error
from pypdf import PdfReader
from pypdf.generic import NameObject, NumberObject, TextStringObject

from tools.chromium import chromium

ROOT = Path(__file__).parents[1]
FUNCTIONS, STYLE = (Path(__file__).with_suffix(s).read_text("utf-8") for s in (".js", ".css"))
NUMBERED = """numbers => document.querySelectorAll("a.to-page").forEach(link => {
  link.lastChild.textContent = numbers[link.hash.slice(1)];
})"""


def chapters(toc):
    """Return [(name, part)] of all pages in order; only the first page of a part names it."""
    found = [(toc["root"], "")]
    for part in toc.get("parts", [toc]):
        caption = part.get("caption", "")
        for chapter in part["chapters"]:
            found.append((chapter["file"], caption))
            caption = ""
    return found


def page_numbers(pdf):
    """Return {anchor: page} of every place in a PDF that a link leads to."""
    reader = PdfReader(io.BytesIO(pdf))
    places = reader.named_destinations.items()
    return {name.lstrip("/"): reader.get_destination_page_number(to) + 1 for name, to in places}


def retitled(pdf, titles):
    """Return a PDF with these words in its bookmarks, as an update at its end.

    Chromium repeats the words of a heading that it had to move to another page.
    """
    reader = PdfReader(io.BytesIO(pdf))
    trailer, new = reader.trailer, bytearray(pdf)
    marks = list(bookmarks(trailer["/Root"]["/Outlines"]))
    table = b"xref\n"
    for mark, title in zip(marks, titles, strict=True):
        number = mark.indirect_reference.idnum
        table += b"%d 1\n%010d 00000 n \n" % (number, len(new))
        mark[NameObject("/Title")] = TextStringObject(title)
        new += b"%d 0 obj\n" % number + written(mark) + b"\nendobj\n"
    trailer[NameObject("/Prev")] = NumberObject(pdf.rsplit(b"startxref")[-1].split()[0])
    end = b"trailer\n" + written(trailer) + b"\nstartxref\n%d\n%%%%EOF\n" % len(new)
    return bytes(new + table + end)


def bookmarks(parent):
    """Yield the bookmarks of a PDF in order."""
    mark = parent.get("/First")
    while mark:
        yield mark.get_object()
        yield from bookmarks(mark)
        mark = mark.get("/Next")


def written(thing):
    """Return an object of a PDF as its bytes."""
    stream = io.BytesIO()
    thing.write_to_stream(stream)
    return stream.getvalue()


def bound(page, root):
    """Make one document of all pages in a browser's page; return the words of its headings."""
    html = root / "_build" / "html"
    pages = []
    for name, part in chapters(yaml.safe_load((root / "_toc.yml").read_text("utf-8"))):
        address = (html / f"{name}.html").as_uri()
        page.goto(address)
        page.add_script_tag(content=FUNCTIONS)
        pages.append({"address": address, "part": part, "html": page.evaluate("read()")})
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    page.add_style_tag(content=STYLE)
    book = {
        "title": config["title"],
        "subtitle": project["description"],
        "logo": (root / config["logo"]).as_uri(),
        "pages": pages,
    }
    return page.evaluate("book => bind(book)", book)


def printed(page, titles):
    """Return the PDF of a document with these headings, with page numbers that are right."""
    page.emulate_media(media="print")
    options = {"prefer_css_page_size": True, "print_background": True}
    numbers = page_numbers(page.pdf(**options))
    page.evaluate(NUMBERED, numbers)
    pdf = page.pdf(**options, tagged=True, outline=True)
    if page_numbers(pdf) != numbers:
        raise RuntimeError("the page numbers in the contents move the pages")
    return retitled(pdf, titles)


def main(root=ROOT):
    """Print the book; the file is replaced only by a whole one."""
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(600_000)
        pdf = printed(page, bound(page, root))
    done = root / "_build" / "book.pdf"
    part = done.with_suffix(".part")
    part.write_bytes(pdf)
    os.replace(part, done)
    print(f"{done.relative_to(root)}: {len(PdfReader(done).pages)} pages, {len(pdf) / 1e6:.0f} MB")


if __name__ == "__main__":
    try:
        main()
    except (LookupError, RuntimeError, Error) as error:
        sys.exit(f"There is no PDF: {error}")

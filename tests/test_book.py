"""`make book`, driven as it is on a copy of its parts with small pages in the place of ours."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from tools import serve
from tools.offline import hold_together, typeset

ROOT = Path(__file__).parent.parent
PARTS = ["Makefile", "_config.yml", "pyproject.toml", "requirements.lock", "tools", "book/_static"]
TOC = """format: jb-book
root: notebooks/00_small
chapters:
  - file: book/one
  - file: book/two
"""
BIB = "@misc{bishop1995, author={Bishop, Chris M.}, title={Networks}, year={1995}}\n"
FORMULAS = r"""# One

Inline $\hat R(w)$ and {eq}`eq-risk`, {cite}`bishop1995`, [two](two.md).

$$\begin{aligned} R &= \frac{1}{n} \\ &+ \lambda \end{aligned}$$ (eq-risk)

```{bibliography}
```
"""
PAGES = {"book/one.md": FORMULAS, "book/two.md": "# Two\n\nWords.\n", "book/references.bib": BIB}


def notebook(*outputs):
    """Return the JSON of a notebook with a title and one executed code cell."""
    code = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "setup",
        "metadata": {},
        "outputs": list(outputs),
        "source": "print(1)",
    }
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Small"}
    metadata = {"language_info": {"name": "python"}}
    cells = [title, code]
    return json.dumps(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


PRINTED = {"name": "stdout", "output_type": "stream", "text": "1\n"}
RAISED = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["no"]}


def small_book(folder, changes=None):
    """Write the project's own machinery and small pages into an empty folder."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, folder / part)
    (folder / ".venv").symlink_to(sys.prefix)
    pages = {"_toc.yml": TOC, "notebooks/00_small.ipynb": notebook(PRINTED)} | PAGES
    for name, text in (pages | (changes or {})).items():
        write(folder / name, text)
    return folder


def write(path, text):
    """Write a page, and its folder where there is none."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")


def make(folder, *arguments):
    """Run make there; `-o` tells it to take the environment of these tests as it is."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    environment["PYTHONPATH"] = str(folder)
    command = ["make", "-o", ".venv/.stamp", *arguments]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    run.says = re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr)
    return run


def written(folder):
    """Return {page: time written} of the HTML pages that hold text of ours."""
    html = folder / "_build" / "html"
    pages = [*html.glob("book/*.html"), *html.glob("notebooks/*.html")]
    return {page.stem: page.stat().st_mtime_ns for page in pages}


def rewritten(folder):
    """Build again and return the names of the pages written anew."""
    before = written(folder)
    run = make(folder, "book")
    assert run.returncode == 0, run.says
    return {name for name, when in written(folder).items() if when != before.get(name)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small book, built without a warning."""
    folder = small_book(tmp_path_factory.mktemp("book"))
    run = make(folder, "book")
    assert run.returncode == 0, run.says
    assert written(folder).keys() == {"00_small", "one", "two"}
    return folder


def test_only_what_changed_is_written_again(built):
    assert rewritten(built) == set()
    write(built / "book/two.md", "# Two\n\nOther words.\n")
    # The root page carries the table of contents, so Sphinx writes it again with any page.
    assert rewritten(built) == {"two", "00_small"}
    write(built / "book/two.md", "# Another title\n\nOther words.\n")
    assert rewritten(built) == {"one", "two", "00_small"}


BROKEN = {
    "missing reference": (
        {"book/two.md": "# Two\n\n{ref}`nowhere`\n"},
        r"book/two\.md:3: WARNING: undefined label: 'nowhere'",
    ),
    "missing file": ({"_toc.yml": TOC + "  - file: book/three\n"}, r"book/three"),
    "invalid JSON": ({"notebooks/00_small.ipynb": '{"cells": ['}, r"notebooks/00_small\.ipynb"),
    "stored error": (
        {"notebooks/00_small.ipynb": notebook(RAISED)},
        r"00_small\.ipynb, cell setup: .*ValueError: no",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_page_fails_the_build_by_name(name, tmp_path):
    changes, message = BROKEN[name]
    run = make(small_book(tmp_path, changes), "book")
    assert run.returncode != 0
    assert re.search(message, run.says), run.says


def test_a_tex_error_fails_every_build_until_it_is_mended(built):
    good = (built / "book/two.md").read_text("utf-8")
    write(built / "book/two.md", "# Two\n\nRight: $a^2$.\n\n$$\\fraq{1}{2}$$\n")
    message = r"two.md:5: WARNING: formula \fraq{1}{2}: Undefined control sequence: \fraq"
    for _ in range(2):
        run = make(built, "book")
        assert run.returncode != 0 and message in run.says, run.says
    write(built / "book/two.md", good)
    assert make(built, "book").returncode == 0


class Loaded(HTMLParser):
    """Collects the addresses a page loads by itself; a link to follow is not one of them."""

    TAGS = {"script", "link", "img", "iframe", "source", "video", "audio", "object", "embed"}

    def __init__(self, page):
        super().__init__()
        self.addresses, self.inside = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        given = [v for k, v in attrs if v and k in {"src", "href", "data", "srcset"}]
        self.addresses += given if tag in self.TAGS else []
        self.addresses += loaded_by_css(" ".join(v for k, v in attrs if v and k == "style"))

    def handle_data(self, text):
        if self.inside == "style":
            self.addresses += loaded_by_css(text)
        if self.inside == "script":
            self.addresses += re.findall(r"https?://[^\s\"'`]+", text)

    def handle_endtag(self, tag):
        self.inside = ""


def loaded_by_css(text):
    """Return the addresses that a style sheet loads."""
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
    return ["".join(pair) for pair in found]


def other_hosts(text, css=False):
    """Return the addresses on another host that a page or style sheet loads."""
    addresses = loaded_by_css(text) if css else Loaded(text).addresses
    return [a for a in addresses if re.match(r"(https?:)?//", a)]


def test_the_pages_load_nothing_from_another_host(built):
    html = built / "_build" / "html"
    files = [*html.rglob("*.html"), *html.rglob("*.css")]
    found = {str(f): other_hosts(f.read_text("utf-8"), f.suffix == ".css") for f in files}
    assert {name: hosts for name, hosts in found.items() if hosts} == {}
    assert len(files) > 10


@pytest.mark.parametrize(
    ("text", "css"),
    [
        ('<script src="https://example.org/x.js"></script>', False),
        ('<link rel="stylesheet" href="//example.org/x.css">', False),
        ('<img alt="" src="http://example.org/x.png">', False),
        ('<iframe src="https://example.org"></iframe>', False),
        ("<style>p { background: url(https://example.org/x.png) }</style>", False),
        ('<p style="background: url(\'https://example.org/x.png\')">', False),
        ('<script>const URL = "https://example.org/lib.js"</script>', False),
        ('@import "https://example.org/x.css";', True),
        ("@font-face { src: url(https://example.org/x.woff2) }", True),
    ],
)
def test_another_host_is_found(text, css):
    assert len(other_hosts(text, css)) == 1


def test_a_link_to_follow_is_no_other_host():
    assert other_hosts('<a href="https://example.org">there</a>') == []


def test_formulas_are_typeset_in_the_page(built):
    page = (built / "_build/html/book/one.html").read_text("utf-8")
    assert page.count('class="katex-display"') == 1
    assert r'<annotation encoding="application/x-tex">\hat R(w)</annotation>' in page
    assert page.count('<span class="eqno">(1)') == 1
    assert "MathJax" not in page and r"\(" not in page


def test_sphinx_alone_numbers_an_equation():
    numbered = r"\begin{align} a &= b \\ c &= d \end{align}"
    assert "katex-tag" not in typeset(numbered, display=True)
    assert "katex-tag" in typeset(r"a \tag{1}", display=True)


def test_a_wrong_formula_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="^Unexpected end of input in a macro"):
        typeset(r"\frac{a", display=False)


def test_the_fonts_named_by_the_style_sheet_are_there():
    katex = ROOT / "book" / "_static" / "katex"
    named = set(re.findall(r"fonts/[\w-]+\.woff2", (katex / "katex.min.css").read_text("utf-8")))
    assert named == {f"fonts/{font.name}" for font in (katex / "fonts").iterdir()}
    assert len(named) == 20


def test_help_has_a_line_for_every_target(tmp_path):
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", "")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    lines = make(small_book(tmp_path), "help").stdout.splitlines()
    assert [line.split()[1] for line in lines] == targets


HALF_BUILDER = """#!/bin/sh
if [ "$1" = -c ]; then exec {python} "$@"; fi
mkdir -p .venv/bin
printf '#!/bin/sh\\nexit 1\\n' > .venv/bin/python
chmod +x .venv/bin/python
"""


def test_a_half_built_environment_does_not_look_finished(tmp_path):
    folder = small_book(tmp_path)
    (folder / ".venv").unlink()
    (folder / ".venv").mkdir()
    write(folder / ".venv/left-over", "")
    write(folder / "python", HALF_BUILDER.format(python=sys.executable))
    (folder / "python").chmod(0o755)
    run = subprocess.run(["make", ".venv/.stamp", "PYTHON=./python"], cwd=folder)
    assert run.returncode != 0
    assert (folder / ".venv/bin/python").exists()
    assert not (folder / ".venv/.stamp").exists()
    assert not (folder / ".venv/left-over").exists()


def test_serving_goes_on_after_a_failed_build(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    serve.build()
    assert "The book was not built" in capsys.readouterr().err
    write(tmp_path / "Makefile", "book:\n\t@true\n")
    serve.build()
    assert capsys.readouterr().err == ""


def test_short_equations_percentages_and_code_stay_in_one_line():
    doctree = publish_doctree("At n = 60 and 0 ≤ p < 1, 95 % of ``a b``, 1e-4, in all.")
    words = doctree.astext()
    hold_together(None, doctree, "page")
    held = [node for node in doctree.findall(nodes.Element) if "held" in node.get("classes", [])]
    assert [node.astext() for node in held] == ["n = 60", "0 ≤ p < 1,", "95 %", "a b", "1e-4,"]
    assert doctree.astext() == words

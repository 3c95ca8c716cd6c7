"""Every claim that a cell checked is numbered, can be cited, and stands on the page of all."""

import ast
import gzip
import json
import re
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes
from test_book import make, rewritten, small_book, write

from helpers import check
from helpers.stats import Estimate, jointly
from tools.claims import parts

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code(name, *printed, source="1"):
    streams = [new_output("stream", name="stdout", text=text) for text in printed]
    return new_code_cell(source, id=name, execution_count=1, outputs=streams)


def printed(cells):
    """What the cells of a notebook printed, as stored."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return ["".join(output.get("text", "")) for output in outputs]


def claimed(text):
    return [part for part in parts(text) if isinstance(part, tuple)]


# What check prints ------------------------------------------------------------------------


def test_texts_and_claims_are_told_apart():
    text = "gain\n  0.5\n✓ one\n✓ two, `x` too\n  other words\n✓ three\n\n"
    found = [("one", []), ("two, `x` too", [])]
    assert parts(text) == ["gain\n  0.5\n", *found, "  other words\n", ("three", [])]
    assert parts("") == [] and parts("no claim") == ["no claim"]


def test_the_estimates_that_check_prints_are_found(capsys):
    gains = [Estimate(mean, 0.5, 10) for mean in (-3.0, 2.0, 1.0, 4.0)]
    check("one", gains[1].low > 0)
    check("joint", *(e.high < 100 for e in jointly(gains)))
    check("no spread", Estimate(100.0, 1e-14, 10).low > 5)
    check("none", True)
    printed = capsys.readouterr().out
    assert [len(estimates) for _, estimates in claimed(printed)] == [1, 2, 1, 0]
    assert len(printed.splitlines()) == sum(1 + len(lines) for _, lines in claimed(printed))


# The stored outputs -----------------------------------------------------------------------


def expected(sources):
    """A pattern for the words of each check in the code: an f-string's values may be anything."""
    calls = [node for source in sources for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "check"]
    return [words(call.args[0]) for call in calls]


def words(node):
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(re.escape(v.value) if isinstance(v, ast.Constant) else ".+" for v in values)


def unmatched(sources, texts):
    """Checks that claimed nothing, and claims that no check made."""
    patterns, said = expected(sources), [claim for text in texts for claim, _ in claimed(text)]
    silent = [p for p in patterns if not any(re.fullmatch(p, claim) for claim in said)]
    return silent + [c for c in said if not any(re.fullmatch(p, c) for p in patterns)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_check_of_a_notebook_claims_something(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert unmatched(sources, printed(cells)) == []
    ticks = sum(text.count("✓") for text in printed(cells))
    assert ticks == sum(len(claimed(text)) for text in printed(cells)) >= len(expected(sources))


def test_a_check_without_a_claim_is_found():
    sources = ['check("a is 1", a == 1)', 'for n in (1, 2):\n    check(f"n = {n}", True)']
    good = "✓ a is 1\n✓ n = 1\n✓ n = 2\n"
    assert unmatched(sources, [good]) == []
    assert unmatched(sources, ["✓ n = 1\n✓ n = 2\n"]) == [r"a\ is\ 1"]
    assert unmatched(sources, [good + "✓ b is 1\n"]) == ["b is 1"]


# The pages --------------------------------------------------------------------------------

SMALL = "✓ it gains\n  9.1 ± 0.6, 95 % interval 7.7 to 10.5, n = 10\n"
OPEN = "✓ it is open\n  -0.1 ± 0.6, 95 % interval -1.5 to 1.3, n = 10\n"
LIST = """# One

{ref}`claim-small-verify-b-2`, {ref}`ex-small-two`, {eq}`eq-small`, {eq}`eq-one`.
{ref}`It says <claim-small-verify-b-2>`.

$$b$$ (eq-one)

```{claims}
```
"""


def chapter(*printed):
    exercise = "(ex-small-two)=\n### Exercise 0.1. Two"
    cells = [new_markdown_cell("# Small", id="title"), code("verify-a", "✓ first\n"),
             new_markdown_cell("## Part\n\n$$a$$ (eq-small)", id="idea-b"),
             code("verify-b", *printed),
             new_markdown_cell(f"## Exercises\n\n{exercise}", id="exercise-two")]
    return writes(new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}))


def pages(printed):
    return {"notebooks/00_small.ipynb": chapter(printed), "book/one.md": LIST}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = small_book(tmp_path_factory.mktemp("book"), pages(f"text\n{SMALL}{OPEN}after\n"))
    run = make(folder, "book")
    assert run.returncode == 0, run.says
    return folder


def page(folder, name):
    path = folder / "_build" / "html" / f"{name}.html"
    return path.read_text("utf-8").replace("\u00a0", " ")


def test_claims_are_numbered_where_they_stand(built):
    here = page(built, "notebooks/00_small")
    found = re.findall(r'<li id="(claim-[\w-]+)">.*?href="#\1">([\d.]+)<', here, re.DOTALL)
    assert found == [("claim-small-verify-a-1", "0.1"), ("claim-small-verify-b-1", "0.2"),
                     ("claim-small-verify-b-2", "0.3")]
    assert here.count(">Claim checked<") == here.count(">Claims checked<") == 1
    assert here.index(">text\n") < here.index("it gains") < here.index(">after\n")


def test_claims_and_exercises_are_cited_by_their_labels(built):
    here = page(built, "book/one")
    assert re.search(r'00_small\.html#claim-small-verify-b-2"><span[^>]*>Claim 0\.3<', here)
    assert re.search(r'00_small\.html#claim-small-verify-b-2"><span[^>]*>It says<', here)
    assert re.search(r'00_small\.html#ex-small-two"><span[^>]*>Exercise 0\.1<', here)


def test_equations_are_counted_in_their_chapter(built):
    assert re.findall(r'class="eqno">\(([\d.]+)\)', page(built, "notebooks/00_small")) == ["0.1"]
    assert re.findall(r'class="eqno">\(([\d.]+)\)', page(built, "book/one")) == ["1"]
    cited = re.findall(r'href="([^"]*)#equation-[^"]*">\(([\d.]+)\)', page(built, "book/one"))
    assert cited == [("../notebooks/00_small.html", "0.1"), ("", "1")]


def test_the_list_has_every_claim_with_its_interval(built):
    here = page(built, "book/one")
    assert len(re.findall(r'href="\S*00_small\.html#claim-[\w-]+">0\.\d<', here)) == 3
    assert "9.1 ± 0.6, 95 % interval 7.7 to 10.5, n = 10" in here
    assert "There are 3 claims. 2 of them compare intervals, and in 1 of these" in here
    assert 'id="claims-small"' in here and 'href="#claims-small"' in here


def test_the_list_follows_its_notebooks(built):
    # The root page carries the table of contents, so Sphinx writes it again with any page.
    notebook = built / "notebooks/00_small.ipynb"
    before = notebook.read_text("utf-8")
    write(notebook, chapter(SMALL + OPEN.replace("-0.1", "-0.2")))
    assert rewritten(built) == {"one", "00_small"}
    assert "−0.2 ± 0.6" in page(built, "book/one")
    write(built / "book/two.md", "# Two\n\nNothing that the list shows.\n")
    assert rewritten(built) == {"two", "00_small"}
    write(notebook, before)
    assert rewritten(built) == {"one", "00_small"}


@pytest.mark.parametrize(("printed", "said"), [
    (SMALL + SMALL, r"00_small\.ipynb: WARNING: two claims say: it gains"),
    (SMALL, r"one\.md:3: WARNING: undefined label: 'claim-small-verify-b-2'"),
])
def test_the_same_words_twice_or_a_label_of_nothing_fail_the_build(printed, said, tmp_path):
    run = make(small_book(tmp_path, pages(printed)), "book")
    assert run.returncode != 0 and re.search(said, run.says), run.says


def unlisted(said, page, listed):
    """How many claims of a notebook are not on its page, and which of these not in the list."""
    here = set(re.findall(r'<li id="(claim-[\w-]+)"', page))
    there = set(re.findall(r'href="[^"#]*#(claim-[\w-]+)">[\d.]+</a>', listed))
    return said.count("✓") - len(here), here - there


def test_every_claim_is_on_its_page_and_on_that_of_all(html):
    listed = (html / "book" / "claims.html").read_text("utf-8")
    counted = 0
    for page in sorted((html / "notebooks").glob("*.html")):
        notebook = html.parents[1] / "notebooks" / f"{page.stem}.ipynb"
        said = "".join(printed(json.loads(notebook.read_text("utf-8"))["cells"]))
        assert unlisted(said, page.read_text("utf-8"), listed) == (0, set()), page.stem
        counted += said.count("✓")
    assert f"There are {counted} claims." in listed and counted > 900
    assert len(gzip.compress(listed.encode())) < 150_000


def test_a_claim_that_is_not_listed_is_noticed():
    item, link = '<li id="claim-a-1">', '<a href="a.html#claim-a-1">1.1</a>'
    assert unlisted("✓ a", item, link) == (0, set())
    assert unlisted("✓ a\n✓ b", item, link) == (1, set())
    assert unlisted("✓ a", item, "") == (0, {"claim-a-1"})

"""The notebook rules: the book's notebooks keep them, and each is shown to fail."""

from pathlib import Path

import pytest
from nbformat import from_dict
from nbformat.v4 import new_notebook, new_output

from tools import rules
from tools.notebooks import normalise, text

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PATH = Path("01_small_chapter.ipynb")

PREDICT = """\
```{admonition} Predict
What will `print("!")` show? Is $3! > 5$?
```"""
EXERCISE = "(ex-small-chapter-four)=\n### Exercise 1.1. Two times two"


def chapter() -> dict:
    """A small chapter that keeps all rules: cell id to (source, outputs, metadata)."""
    label = {"mystnb": {"figure": {"name": "fig-small-chapter-line"}, "image": {"alt": "A line."}}}
    picture = new_output("display_data", {"text/plain": "A line.", "image/png": "AAAA"})
    return {
        "title": "(ch-small-chapter)=\n# 1 · A claim",
        "question": "## The question\n\n![a figure!](x.png)",
        "setup": "import numpy as np\nfrom helpers import check, show",
        "idea-one": "## One",
        "scratch-one": "def double(x):\n    return 2 * np.asarray(x)",
        "agree-one": ("check('ours is theirs', True)", [out("ours is theirs")]),
        "predict-one": PREDICT,
        "run-one": ("three = 3\nprint(double(three))", [out("6")]),
        "plot-one": ("fig, ax = np.subplots()\nshow(fig)", [picture], label),
        "verify-one": ("check('it doubles', double(three) == 6)", [out("it doubles")]),
        "why-one": "Because.",
        "predict-two": PREDICT,
        "run-two": ("for i in range(2):\n    print(i)", [out("0\n1")]),
        "verify-two": ("check('two', True)", [out("two")]),
        "hurts-nothing": "## When it hurts",
        "know": "## What we know now",
        "exercise-four": f"## Exercises\n\n{EXERCISE}\n\nWhat is 2 · 2?",
        "solution-four": ("four = 4\ncheck('four', four == 4)", [out("four")]),
        "reading": "## Further reading",
    }


def out(printed):
    return new_output("stream", name="stdout", text=printed + "\n")


def notebook(cells: dict):
    """A notebook that has been run. `run-one:b` is a second cell with the id run-one."""
    nb = new_notebook()
    nb.cells = [cell(key.split(":")[0], value) for key, value in cells.items()]
    code = (c for c in nb.cells if c.cell_type == "code")
    for number, one in enumerate(code, start=1):
        one.execution_count = number
    return nb


def cell(name: str, content):
    """Prose where the role says so or the source is a heading, else code."""
    source, outputs, metadata = (*content, {})[:3] if isinstance(content, tuple) else (
        content, [], {}
    )
    if rules.ROLES.get(name.split("-")[0]) == rules.PROSE or source.startswith("## "):
        node = {"cell_type": "markdown", "source": source}
    else:
        node = {"cell_type": "code", "source": source, "outputs": outputs}
    return from_dict({**node, "id": name, "metadata": metadata})


def replaced(**changes) -> dict:
    """The chapter with some cells replaced; None takes a cell out."""
    changes = {name.replace("__", "-"): content for name, content in changes.items()}
    return {name: c for name, c in (chapter() | changes).items() if c is not None}


def after(place: str, **new) -> dict:
    """The chapter with cells put in after the one named."""
    cells = {}
    for name, content in chapter().items():
        cells[name] = content
        if name == place:
            cells |= {key.replace("__", "-"): value for key, value in new.items()}
    return cells


def figure(said, alt, name="fig-small-chapter-line"):
    source, _, _ = chapter()["plot-one"]
    picture = new_output("display_data", {"text/plain": said, "image/png": "AAAA"})
    return source, [picture], {"mystnb": {"figure": {"name": name}, "image": {"alt": alt}}}


LONG = "\n".join(f"line_{i} = {i}" for i in range(26))
LONG_PLOT = "\n".join(f"np.plot({i})" for i in range(13))
WARNED = new_output("stream", name="stderr", text="careful\n")
RAISED = new_output("error", ename="ValueError", evalue="p is 2", traceback=[])
EXPECTED_ERROR = {"tags": ["raises-exception"]}

BROKEN = {
    "no output": (replaced(run__two=("print(1)", [])), "cell run-two: calls print() but has no"),
    "stored error": (
        replaced(run__two=("1 / 0", [RAISED])),
        "cell run-two: its stored output is an error: ValueError: p is 2",
    ),
    "expected error did not come": (
        replaced(run__two=("x = 1", [], EXPECTED_ERROR)),
        "cell run-two: has the tag raises-exception, but",
    ),
    "stderr": (replaced(run__two=("x = 1", [WARNED])), "cell run-two: its stored output has warn"),
    "no role": (after("idea-one", thought="## A thought"), "cell thought: its id must begin with"),
    "id of a machine": (after("idea-one", **{"1a2b3c4d": "## x"}), "cell 1a2b3c4d: its id must"),
    "no name after the role": (after("idea-one", why="Because."), "cell why: its id needs a name"),
    "id twice": (after("why-one", **{"why-one:b": "Again."}), "cell why-one: another cell has"),
    "wrong kind": (replaced(verify__two="## words"), "cell verify-two: is a markdown cell; verify"),
    "line too long": (
        replaced(setup="x = " + "1" * 85), "cell setup: has a line of 89 characters; at most 88"
    ),
    "address": (
        replaced(run__two=("x", [out("<object at 0x7f3a>")])),
        "cell run-two: shows the address of an object",
    ),
    "legend beside the figure": (
        replaced(plot__one=(
            chapter()["plot-one"][0], [*chapter()["plot-one"][1], out("(None, None)")],
            chapter()["plot-one"][2],
        )),
        "cell plot-one: shows something beside its figure",
    ),
    "too long": (replaced(setup=LONG), "cell setup: has 26 lines; at most 25"),
    "plot too long": (after("run-two", plot__two=LONG_PLOT), "plot-two: has 13 lines; at most 12"),
    "empty cell": (replaced(scratch__one=""), "cell scratch-one: is empty"),
    "magic": (replaced(setup="%pip install x"), "cell setup: is not plain Python"),
    "shell": (replaced(setup="!ls"), "cell setup: is not plain Python"),
    "defines and runs": (
        replaced(scratch__one="def double(x):\n    return 2 * x\ny = double(2)"),
        "cell scratch-one: defines and runs",
    ),
    "show outside a plot cell": (
        replaced(run__two=("show(3)", [out("3")])),
        "cell run-two: shows a figure; only a plot- cell",
    ),
    "picture outside a plot cell": (
        replaced(run__two=("fig.savefig", *chapter()["plot-one"][1:])),
        "cell run-two: shows a figure; only a plot- cell",
    ),
    "two figures in a cell": (
        replaced(plot__one=(chapter()["plot-one"][0] + "\nshow(fig)", *chapter()["plot-one"][1:])),
        "cell plot-one: shows 2 figures; one only",
    ),
    "plt.show": (replaced(run__two="plt.show()"), "cell run-two: has plt.show()"),
    "global": (
        replaced(scratch__one="def double(x):\n    global y\n    y = x"),
        "cell scratch-one: has global",
    ),
    "filterwarnings": (
        replaced(setup="import warnings\nwarnings.filterwarnings('ignore')"),
        "cell setup: has warnings.filterwarnings()",
    ),
    "simplefilter": (
        replaced(setup="import warnings\nwarnings.simplefilter('ignore')"),
        "cell setup: has warnings.simplefilter()",
    ),
    "get_ipython": (replaced(setup="get_ipython().x()"), "cell setup: has get_ipython()"),
    "network": (replaced(setup="import requests"), "cell setup: has import requests (network)"),
    "network, from": (
        replaced(setup="from urllib.request import urlopen"),
        "cell setup: has import urllib.request (network)",
    ),
    "download": (replaced(run__two="load(download=True)"), "cell run-two: has download="),
    "nbval tag": (
        replaced(run__two=("x = 1", [], {"tags": ["nbval-ignore-output"]})),
        "cell run-two: is marked nbval-ignore-output",
    ),
    "nbval comment": (
        replaced(run__two="# NBVAL_SKIP\nx = 1"),
        "cell run-two: is marked NBVAL_SKIP",
    ),
    "name bound twice": (
        replaced(run__two="three = 4"),
        "cell run-two: binds three again (first in cell run-one)",
    ),
    "name bound twice in a cell": (
        replaced(run__two="x = 4\nx += 1"),
        "cell run-two: binds x again (first in cell run-two)",
    ),
    "import twice": (replaced(run__two="import numpy as np"), "cell run-two: binds np again"),
    "function twice": (
        after("why-one", scratch__two="def double(x):\n    return x"),
        "cell scratch-two: binds double again",
    ),
    "function reads data": (
        replaced(scratch__one="def double(x):\n    return x * three"),
        "cell scratch-one: double reads three, which is not its argument",
    ),
    "inner function reads data": (
        replaced(scratch__one="def double(x):\n    return [three * i for i in x]"),
        "cell scratch-one: double reads three",
    ),
    "method reads data": (
        replaced(scratch__one="class Double:\n    def of(self, x):\n        return three * x"),
        "cell scratch-one: Double reads three",
    ),
    "no prediction": (replaced(predict__two=None), "cell run-two: has no predict- cell between"),
    "no verification": (replaced(verify__one=None), "cell run-one: has no verify- cell between"),
    "no last verification": (replaced(verify__two=None), "cell run-two: has no verify- cell"),
    "four code cells in a row": (
        after("verify-one", agree__two="x = 1"),
        "cell agree-two: is code cell number 4 in a row",
    ),
    "figure without description": (
        replaced(plot__one=figure("<Figure size 640x480>", "<Figure size 640x480>")),
        "cell plot-one: its figure has no description",
    ),
    "wrong alt text": (
        replaced(plot__one=figure("A line.", "A curve.")),
        "cell plot-one: its alt text is not the figure's description",
    ),
    "alt text without a figure": (
        replaced(plot__one=("fig = 1", [], {"mystnb": {"image": {"alt": "A line."}}})),
        "cell plot-one: its alt text is not the figure's description",
    ),
    "label of another chapter": (
        replaced(plot__one=figure("A line.", "A line.", "fig-other-line")),
        "cell plot-one: its mystnb.figure.name is 'fig-other-line'",
    ),
    "no question": (replaced(question=None), "cell title: the chapter has no question cell"),
    "no honest case": (replaced(hurts__nothing=None), "the chapter has no hurts cell"),
    "order": (
        dict(sorted(chapter().items(), key=lambda item: item[0] == "question")),
        "cell question: stands after the first setup cell",
    ),
    "one turn only": (
        replaced(predict__two=None, run__two=None, verify__two=None),
        "cell title: the chapter has 1 run- cells; at least 2",
    ),
    "no label": (
        replaced(title="# 1 · A claim"),
        "cell title: must begin with the label (ch-small-",
    ),
    "title without a number": (
        replaced(title="(ch-small-chapter)=\n# A claim"),
        "cell title: must begin with the label (ch-small-chapter)= and under it the heading # 1",
    ),
    "label of another file": (
        replaced(title="(ch-other)=\n# 1 · A claim"),
        "cell title: must begin with the label (ch-small-chapter)=",
    ),
    "exercise without a number": (
        replaced(exercise__four="## Exercises\n\n### Two times two"),
        "cell exercise-four: needs the label (ex-small-chapter-four)= and right under it the "
        "heading ### Exercise 1.1. ",
    ),
    "exercise with the number of another": (
        replaced(exercise__four=EXERCISE.replace("1.1", "1.2")),
        "cell exercise-four: needs the label",
    ),
    "exercise without solution": (
        replaced(exercise__four=None, exercise__five="## Exercises"),
        "cell exercise-five: needs a code cell solution-five",
    ),
    "solution without check": (
        replaced(solution__four=("check('four', True)\nfour = 4", [out("four")])),
        "cell exercise-four: needs a code cell solution-four",
    ),
    "heading skips a level": (
        replaced(idea__one="#### One"),
        "cell idea-one: a heading of level 4 stands under one of level 2",
    ),
    "second title": (replaced(idea__one="# One"), "cell idea-one: has a second heading of level 1"),
    "a comment by accident": (
        replaced(why__one="A network with 20\n% wrong labels."),
        "cell why-one: MyST takes this line for a comment: % wrong labels.",
    ),
    "a list by accident": (
        replaced(why__one="It is $m - i\n+ 1$ here."), "cell why-one: this line begins a list",
    ),
    "exclamation mark": (replaced(why__one="Look!"), "cell why-one: has an exclamation mark"),
    "exclamation mark in an admonition": (
        replaced(predict__two="```{admonition} Predict\nGo on!\n```"),
        "cell predict-two: has an exclamation mark",
    ),
    "simply": (replaced(why__one="We simply add."), "cell why-one: has the word 'simply'"),
}


def test_a_good_chapter_breaks_no_rule():
    assert rules.broken_rules(notebook(chapter()), PATH) == []


EIGHT = "def eight(x, *, n=2):\n    return sum(double(x) for _ in range(n))"
TWICE = "class Twice:\n    def __init__(self, x):\n        self.x = double(x)"
TAU = "'Times tau.'\nimport math\ndef double(x):\n    return math.tau * x"
NO_PROSE = "`simply!`\n\n```python\na != 1\n```\n\n$$n!$$\n\n```{math}\nn!\n```"
ALLOWED = {
    "loop variable again": after("why-one", scratch__two="for i in range(2):\n    np.sin(i)"),
    "fig and ax again": after("run-two", plot__two="fig, ax = np.subplots()\n_ = ax.plot([1])"),
    "function reads imports and functions": after("why-one", scratch__two=EIGHT),
    "class reads functions": after("why-one", scratch__two=TWICE),
    "imports beside a function": replaced(scratch__one=TAU),
    "expected error": replaced(run__two=("1 / 0", [RAISED], EXPECTED_ERROR)),
    "solution in two cells": after("exercise-four", solution__four__hand="def f(x):\n    return x"),
    "code and formulas in prose": replaced(why__one=NO_PROSE),
}


@pytest.mark.parametrize("cells", ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed(cells):
    assert rules.broken_rules(notebook(cells), PATH) == []


@pytest.mark.parametrize("cells, said", BROKEN.values(), ids=BROKEN)
def test_each_rule_can_fail(cells, said):
    found = rules.broken_rules(notebook(cells), PATH)
    assert [message for message in found if f"{PATH.name}, cell" in message and said in message]


def unrun():
    """The chapter with one cell that was not run and one that was run out of order."""
    nb = notebook(chapter())
    nb.cells[2].execution_count, nb.cells[4].execution_count = None, 7
    return nb


def test_cells_not_run_or_out_of_order():
    found = rules.broken_rules(unrun(), PATH)
    assert "01_small_chapter.ipynb, cell setup: was not run; run `make notebooks`" in found
    assert any("cell scratch-one: is code cell 2, but was run as number 7" in m for m in found)


@pytest.mark.parametrize("rule", [*rules.PAGE_RULES, *rules.STYLE_RULES], ids=lambda r: r.__name__)
def test_no_rule_is_always_silent(rule):
    cases = (notebook(cells) for cells, _ in BROKEN.values())
    assert any(list(rule(rules.Notebook(nb, PATH))) for nb in (unrun(), *cases))


def test_every_rule_is_listed():
    listed = {rule.__name__ for rule in (*rules.PAGE_RULES, *rules.STYLE_RULES)}
    written = {
        name for name, f in vars(rules).items()
        if getattr(f, "__annotations__", {}).get("return") == rules.Found
    }
    assert written == listed


def test_cell_without_an_id_is_named_by_its_number():
    nb = notebook(chapter())
    del nb.cells[3]["id"]
    found = rules.broken_rules(nb, PATH)
    assert any(m.startswith(f"{PATH.name}, cell number 4: its id must") for m in found)


def test_welcome_page_needs_no_frame():
    cells = {"title": "# Welcome", "setup": "import numpy as np"}
    assert rules.broken_rules(notebook(cells), Path("00_welcome.ipynb")) == []
    assert rules.broken_rules(notebook(cells), Path("04_welcome.ipynb"))


# Files --------------------------------------------------------------------------------------


def test_file_must_be_in_normal_form(tmp_path):
    path, nb = tmp_path / PATH, normalise(notebook(chapter()))
    path.write_text(text(nb), encoding="utf-8")
    assert rules.broken_file(path) == []
    path.write_text(text(nb) + "\n", encoding="utf-8")
    assert rules.broken_file(path) == [
        "01_small_chapter.ipynb: is not in normal form; run `make notebooks`"
    ]
    assert rules.broken_file(path, quick=True) == []


def test_file_must_be_a_notebook(tmp_path):
    path = tmp_path / "x.ipynb"
    assert "No such file" in rules.broken_file(path)[0]
    path.write_text("{")
    for quick in (True, False):
        (found,) = rules.broken_file(path, quick)
        assert found.startswith(f"{path}: this is no notebook of format 4:")


TOC = {
    "root": "notebooks/00_welcome",
    "parts": [
        {"chapters": [{"file": "book/conventions"}]},
        {"chapters": [{"file": "notebooks/01_a", "sections": [{"file": "notebooks/02_b"}]}]},
    ],
}
NAMES = ["00_welcome", "01_a", "02_b"]


@pytest.mark.parametrize(
    "names, toc, said",
    [
        (NAMES, TOC, []),
        ([*NAMES, "03_c"], TOC, ["_toc.yml: 03_c is not in it"]),
        (NAMES[:2], TOC, ["_toc.yml: notebooks/02_b does not exist"]),
        (
            ["01_a", "02_b"],
            {"root": "notebooks/02_b", "chapters": [{"file": "notebooks/01_a.ipynb"}]},
            ["_toc.yml: the order is 02_b, 01_a; it must be that of their numbers"],
        ),
    ],
)
def test_table_of_contents(names, toc, said):
    assert rules.broken_order(names, toc) == said


def test_command_names_what_is_broken(tmp_path, capsys):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    assert rules.main([str(folder)]) == 1
    assert "there is no notebook in it" in capsys.readouterr().err

    (folder / PATH).write_text(text(normalise(notebook(chapter()))), encoding="utf-8")
    assert rules.main([str(folder)]) == 1
    assert "_toc.yml" in capsys.readouterr().err
    (tmp_path / "_toc.yml").write_text("root: notebooks/01_small_chapter\n")
    assert rules.main([str(folder)]) == 0

    broken = notebook(replaced(run__two=("1 / 0", [RAISED]), why__one="Look!"))
    (folder / PATH).write_text(text(normalise(broken)), encoding="utf-8")
    assert rules.main(["--quick", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "cell run-two: its stored output is an error" in said and "why-one" not in said


def test_the_notebooks_of_the_book_keep_the_rules():
    assert rules.broken_folder(NOTEBOOKS) == []

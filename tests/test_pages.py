"""What the prose pages say of the project is so."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.M))


def commands(text: str) -> set[str]:
    """Every ``make target`` that a text names in code, in a line or in a block of its own."""
    code = re.findall(r"^```\n.*?^```|(?<!`)`[^`\n]+`(?!`)", text, re.S | re.M)
    return {name for part in code for name in re.findall(r"\bmake ([a-z-]+)", part)}


def shown(text: str) -> set[str]:
    """Every file that a page includes whole."""
    return set(re.findall(r"```\{literalinclude\} \.\./(\S+)\n```", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_exists(page):
    assert commands(page.read_text("utf-8")) <= targets()


def test_the_readmes_first_screen_has_the_two_commands():
    first_screen = "\n".join((ROOT / "README.md").read_text("utf-8").splitlines()[:20])
    assert {"book", "test"} <= commands(first_screen)


def test_the_toolbox_shows_every_helper():
    helpers = {f"helpers/{p.name}" for p in (ROOT / "helpers").glob("*.py")}
    toolbox = (ROOT / "book" / "toolbox.md").read_text("utf-8")
    assert shown(toolbox) == helpers - {"helpers/__init__.py"}


def taught() -> list[tuple[str, str]]:
    """Each helper whose docstring says where it is taught, and that notebook."""
    found = []
    for path in sorted((ROOT / "helpers").glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            text = ast.get_docstring(node) or "" if isinstance(node, ast.FunctionDef) else ""
            found += [(node.name, place) for place in re.findall(r"Taught in: (\S+)", text)]
    return found


@pytest.mark.parametrize(("helper", "notebook"), taught())
def test_a_taught_helper_meets_the_hand_version_in_its_chapter(helper, notebook):
    cells = json.loads((ROOT / f"{notebook}.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert any(re.search(rf"\b{helper}\b", cell) and "check(" in cell for cell in code)


def test_a_page_that_names_what_is_not_there_is_noticed():
    assert commands("Run `make bread`, then\n```\nmake book\n```") == {"bread", "book"}
    assert commands("```{admonition} Try\nmake it `smaller`\n```") == set()
    assert "bread" not in targets() and "book" in targets()
    assert shown("```{literalinclude} ../helpers/gone.py\n```") == {"helpers/gone.py"}

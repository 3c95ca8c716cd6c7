"""The same sources build with plain Sphinx, newer than Jupyter Book allows: `make book-next`."""

import runpy

import pytest
import yaml
from jupyter_book.config import get_final_config
from test_book import ROOT
from test_browser import Eye

NEXT = ROOT / "_build" / "next" / "html"
PAGES = ["notebooks/04_l2", "notebooks/00_welcome", "book/glossary", "book/explore", "search"]
# What Jupyter Book loads for itself.
OWN = {"jupyter_book", "sphinx_comments", "sphinx_jupyterbook_latex", "sphinx_multitoc_numbering",
       "sphinx_thebe", "sphinx_togglebutton", "sphinx.ext.intersphinx"}


def differences(conf):
    """The settings of a conf.py that aren't those that Jupyter Book makes of _config.yml."""
    theirs, _ = get_final_config(
        user_yaml=ROOT / "_config.yml", cli_config={"latex_individualpages": False}, sourcedir=ROOT
    )
    ours = {
        name: value
        for name, value in conf.items()
        if name.islower() and name[0] != "_" and name not in {"sys", "yaml"}
    }
    found = {name for name, value in ours.items() if differs(value, theirs.get(name))}
    if set(theirs["extensions"]) - OWN != set(ours["extensions"]):
        found.add("extensions")
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["sphinx"]["config"]
    return found | (config.keys() - ours.keys())


def differs(ours, theirs):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return any(differs(value, theirs.get(name)) for name, value in ours.items())
    if isinstance(ours, list) and isinstance(theirs, list):
        return not {str(item) for item in ours} <= {str(item) for item in theirs}
    return ours != theirs


def test_conf_py_and_config_yml_agree():
    assert differences(runpy.run_path(ROOT / "conf.py")) == set()


def test_a_conf_py_that_goes_its_own_way_is_noticed():
    conf = runpy.run_path(ROOT / "conf.py")
    assert differences(conf | {"html_title": "Another"}) == {"html_title"}
    assert differences(conf | {"numfig": False}) == {"numfig"}
    assert differences(conf | {"extensions": conf["extensions"][1:]}) == {"extensions"}
    del conf["html_math_renderer"]
    assert differences(conf) == {"html_math_renderer"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_next_build_is_like_ours(browser, html, name):
    if not NEXT.exists():
        pytest.skip("the pages of the next build are not there: make book-next")
    seen = []
    for home in (html, NEXT):
        eye = Eye(browser)
        eye.page.goto((home / f"{name}.html").as_uri())
        facts = eye.facts()
        formulas = eye.page.locator(".bd-article .katex").count()
        assert eye.problems == [] and eye.elsewhere(home.as_uri()) == []
        assert facts.badFigures == [] and facts.tooWide <= 0
        seen.append((facts.figures, formulas, facts.headings))
        eye.context.close()
    assert seen[0] == seen[1]

"""The same book for plain `sphinx-build`: what it shares with Jupyter Book is in _config.yml."""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))
BOOK = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))

extensions = [
    "myst_nb",
    "sphinx_book_theme",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_external_toc",
    "sphinxcontrib.bibtex",
    *BOOK["sphinx"]["local_extensions"],
]
globals().update(BOOK["sphinx"]["config"])

author = BOOK["author"]
copyright = BOOK["copyright"]
bibtex_bibfiles = BOOK["bibtex_bibfiles"]
exclude_patterns = BOOK["exclude_patterns"]
external_toc_exclude_missing = BOOK["only_build_toc_files"]
myst_enable_extensions = BOOK["parse"]["myst_enable_extensions"]
nb_execution_mode = BOOK["execute"]["execute_notebooks"]
numfig = True

html_theme = "sphinx_book_theme"
html_theme_options = BOOK["sphinx"]["config"]["html_theme_options"] | {
    "home_page_in_toc": BOOK["html"]["home_page_in_navbar"],
    "launch_buttons": BOOK["launch_buttons"],
    "repository_url": BOOK["repository"]["url"],
    "repository_branch": BOOK["repository"]["branch"],
}
html_title = BOOK["title"]
html_logo = BOOK["logo"]
html_favicon = BOOK["html"]["favicon"]

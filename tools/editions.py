"""A Sphinx extension: what a reader takes along, and where a notebook can be run.

Each chapter can be downloaded as it is, or as a student edition: without solutions, outputs and
marks for the page, with an empty cell below each exercise. The buttons that launch a notebook
elsewhere appear once ``repository.url`` is set in ``_config.yml``;

    python -m tools.editions

then writes the address into the first cell of each notebook, which installs the book on Colab.
"""

import copy
import hashlib
import sys
from pathlib import Path

import nbformat
import yaml

from tools.notebooks import read, text, write_whole

CHAPTERS = "notebooks/"
INSTALL = '''\
# Where the book isn't installed, as on Colab, this fetches what the notebook imports.
import subprocess
import sys
from importlib.util import find_spec

BOOK = "{address}"  # the address of the book's repository
if not find_spec("helpers"):
    assert BOOK, "Install the book, or write the address of its repository above."
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "d2l==1.0.3", "git+" + BOOK], check=True)'''


def student(nb):
    """Return the notebook as a student gets it: to be run, predicted and solved."""
    new = copy.deepcopy(nb)
    new.cells = []
    for cell in copy.deepcopy(nb.cells):
        role, _, name = cell.id.partition("-")
        if role == "solution":
            continue
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        new.cells.append(cell)
        if role == "exercise":
            answer = nbformat.v4.new_code_cell("# Your answer", id=f"answer-{name}")
            new.cells.append(answer)
    return new


def offer_editions(app, pagename, templatename, context, doctree):
    """Put both editions of a chapter into the theme's menu of downloads."""
    source = Path(app.env.doc2path(pagename)) if doctree else Path()
    if source.suffix != ".ipynb" or not pagename.startswith(CHAPTERS):
        return
    file = Path(app.outdir, "_sources", f"{pagename}_student.ipynb")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text(student(read(source))))
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            full = group["buttons"][0]
            full |= {"text": "Notebook, complete", "tooltip": "With outputs and solutions"}
            url = full["url"].replace(f"{pagename}.ipynb", f"{pagename}_student.ipynb")
            label = {"text": "Student edition", "tooltip": "Without outputs and solutions"}
            group["buttons"].insert(0, {**full, **label, "url": url, "icon": "fas fa-pencil"})


def launch_from_a_repository(app, config):
    """Without the address of a repository nothing can be launched; Colab knows GitHub alone."""
    options = config.html_theme_options
    url = options.get("repository_url") or ""
    if not url:
        options.pop("launch_buttons", None)
    elif "github.com" not in url:
        options.get("launch_buttons", {}).pop("colab_url", None)
    options.setdefault("repository_branch", "main")


def setup(app):
    """Register with Sphinx, after the theme has made its buttons."""
    app.connect("config-inited", launch_from_a_repository)
    app.connect("html-page-context", offer_editions, priority=900)
    # A change of this file rewrites every page.
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    app.add_config_value("editions_source", source, "html", str)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def install_cell(config):
    """Return the source of a notebook's first code cell for what ``_config.yml`` says."""
    repository = config.get("repository") or {}
    address = (repository.get("url") or "").rstrip("/")
    branch = f"@{repository['branch']}" if address and repository.get("branch") else ""
    return INSTALL.format(address=address + branch)


def main():
    """Write the address of the repository into every notebook."""
    source = install_cell(yaml.safe_load(Path("_config.yml").read_text("utf-8")))
    for path in sorted(Path(CHAPTERS).glob("*.ipynb")):
        nb = read(path)
        for cell in nb.cells:
            if cell.id == "install":
                cell.source = source
        write_whole(path, text(nb))


if __name__ == "__main__":
    sys.exit(main())

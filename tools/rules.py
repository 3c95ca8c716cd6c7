"""The rules that every notebook keeps, as tests.

    python -m tools.rules [--quick] [notebook or folder ...]        (default: notebooks)

Prints one line for each broken rule and exits with 1 if there is one. With ``--quick`` it
asks only what a page needs: the file is a notebook, every cell was run and none failed.

A rule is a function of a ``Notebook`` that yields (cell, what is wrong). ``PAGE_RULES`` and
``STYLE_RULES`` at the end list them all.
"""

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tools.notebooks import description, normalise, read, readable, text

Found = Iterator[tuple[dict, str]]

CODE, PROSE = {"code"}, {"markdown"}
EITHER = CODE | PROSE
ROLES = {  # first word of a cell id: the kinds of cell it may be
    "title": PROSE,
    "install": CODE,
    "question": PROSE,
    "setup": CODE,
    "idea": PROSE,
    "scratch": CODE,
    "agree": CODE,
    "predict": PROSE,
    "run": CODE,
    "plot": CODE,
    "verify": CODE,
    "why": PROSE,
    "hurts": EITHER,
    "d2l": EITHER,
    "know": PROSE,
    "exercise": PROSE,
    "solution": EITHER,
    "reading": PROSE,
}
# There is one of each, so that they need no name.
BARE = {"title", "install", "question", "setup", "know", "reading"}
FRAME = ["title", "question", "setup", "run", "hurts", "know", "exercise", "solution", "reading"]

CODE_LINES, PLOT_LINES, CODE_CELLS_IN_A_ROW, TURNS, COLUMNS = 25, 12, 3, 2, 88
REUSED = {"fig", "ax", "axes", "_"}
NETWORK = {"requests", "urllib", "http", "socket", "aiohttp", "httpx"}
CALLS = {"plt.show", "warnings.filterwarnings", "warnings.simplefilter", "get_ipython"}
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
UNNAMED_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
VERBATIM = {"code", "code-block", "code-cell", "math", "literalinclude", "eval-rst", "raw"}
LIST_ITEM = r"(?:[-+*]|\d+[.)]) "
MARKDOWN = MarkdownIt().use(dollarmath_plugin, double_inline=True)


class Notebook:
    """A notebook as the rules see it: its cells, and the name that its labels carry."""

    def __init__(self, nb, path: Path):
        self.cells = nb.cells
        self.number, _, slug = path.stem.partition("_")
        self.slug = slug.replace("_", "-")
        self.is_chapter = self.number.isdigit() and int(self.number) > 0

    @cached_property
    def code(self) -> list:
        return [cell for cell in self.cells if cell.cell_type == "code"]

    @cached_property
    def trees(self) -> list[tuple[dict, ast.Module]]:
        """Each code cell with its syntax tree; ``is_python`` speaks of cells that have none."""
        return [(cell, tree) for cell in self.code if (tree := parse(cell.source))]


def parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def role(cell) -> str:
    return cell.get("id", "").split("-")[0]


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the cell runs: not the bodies of functions and classes."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, SCOPES + UNNAMED_SCOPES):
            yield from outside_functions(node)


def called(nodes: Iterable[ast.AST]) -> list[str]:
    """The dotted names that are called, such as ``plt.show``."""
    return [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]


# What a page needs --------------------------------------------------------------------------


def was_run(notebook: Notebook) -> Found:
    for cell in notebook.code:
        if cell.get("execution_count") is None:
            yield cell, "was not run; run `make notebooks`"


def has_its_outputs(notebook: Notebook) -> Found:
    for cell, tree in notebook.trees:
        speaking = {"check", "print", "show"} & set(called(outside_functions(tree)))
        if speaking and not cell.outputs:
            yield cell, f"calls {min(speaking)}() but has no stored output; run `make notebooks`"


def no_errors(notebook: Notebook) -> Found:
    for cell in notebook.code:
        errors = [o for o in cell.outputs if o.output_type == "error"]
        allowed = "raises-exception" in cell.metadata.get("tags", [])
        if errors and not allowed:
            yield cell, f"its stored output is an error: {errors[0].ename}: {errors[0].evalue}"
        if allowed and not errors:
            yield cell, "has the tag raises-exception, but its stored output is no error"


# Outputs ------------------------------------------------------------------------------------


def was_run_top_to_bottom(notebook: Notebook) -> Found:
    for number, cell in enumerate(notebook.code, start=1):
        count = cell.get("execution_count")
        if count not in (number, None):
            yield cell, (
                f"is code cell {number}, but was run as number {count}; run the notebook "
                "from top to bottom with `make notebooks`"
            )


def no_stderr(notebook: Notebook) -> Found:
    for cell in notebook.code:
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield cell, "its stored output has warnings (stderr); mend what they warn of"


# The cell -----------------------------------------------------------------------------------


def ids(notebook: Notebook) -> Found:
    seen = set()
    for cell in notebook.cells:
        name = cell.get("id", "")
        if not readable(name) or role(cell) not in ROLES:
            yield cell, f"its id must begin with a role: {', '.join(ROLES)}"
        elif name in ROLES and name not in BARE:
            yield cell, f"its id needs a name after the role, such as {name}-degrees"
        if name in seen:
            yield cell, "another cell has the same id"
        seen.add(name)


def kinds(notebook: Notebook) -> Found:
    for cell in notebook.cells:
        kinds = ROLES.get(role(cell), EITHER)
        if cell.cell_type not in kinds:
            yield cell, f"is a {cell.cell_type} cell; {role(cell)} must be {min(kinds)}"


def cell_length(notebook: Notebook) -> Found:
    for cell in notebook.code:
        lines = len(cell.source.splitlines())
        most, aim = (PLOT_LINES, 8) if role(cell) == "plot" else (CODE_LINES, 15)
        if lines > most:
            yield cell, f"has {lines} lines; at most {most} are allowed (aim at {aim})"
        if not lines:
            yield cell, "is empty"


def line_length(notebook: Notebook) -> Found:
    for cell in notebook.code:
        longest = max(map(len, cell.source.split("\n")))
        if longest > COLUMNS:
            yield cell, f"has a line of {longest} characters; at most {COLUMNS} fit the page"


def is_python(notebook: Notebook) -> Found:
    for cell in notebook.code:
        if parse(cell.source) is None:
            yield cell, "is not plain Python (a magic, perhaps, or a syntax error)"


def defines_or_runs(notebook: Notebook) -> Found:
    for cell, tree in notebook.trees:
        kinds = {_defines(statement) for statement in tree.body} - {None}
        if len(kinds) == 2:
            yield cell, "defines and runs; put the definitions into a cell of their own"


def _defines(statement: ast.stmt) -> bool | None:
    """True for def and class, None for what may stand beside them, False for all the rest."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return None
    text_only = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return None if text_only else isinstance(statement, SCOPES)


def one_figure_per_plot_cell(notebook: Notebook) -> Found:
    for cell, tree in notebook.trees:
        shows = max(called(ast.walk(tree)).count("show"), len(pictures(cell)))
        if shows and role(cell) != "plot":
            yield cell, "shows a figure; only a plot- cell does"
        if shows > 1:
            yield cell, f"shows {shows} figures; one only, since a cell has one alt text"


def pictures(cell) -> list:
    """The outputs of a code cell that hold a PNG."""
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def forbidden_code(notebook: Notebook) -> Found:
    for cell, tree in notebook.trees:
        for node in ast.walk(tree):
            if found := _forbidden(node):
                yield cell, f"has {found}, which no notebook may have"


def _forbidden(node: ast.AST) -> str:
    if isinstance(node, ast.Global):
        return "global"
    if isinstance(node, ast.Call):
        return next((f"{name}()" for name in called([node]) if name in CALLS), "")
    if isinstance(node, ast.keyword) and node.arg == "download":
        return "" if ast.unparse(node.value) == "False" else "download="
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return next((f"import {m} (network)" for m in modules if m.split(".")[0] in NETWORK), "")


def no_addresses(notebook: Notebook) -> Found:
    """``<object at 0x7f…>`` says nothing to a reader and is another one in every run."""
    for cell in notebook.code:
        if re.search(r" at 0x[0-9a-f]+>", str(cell.outputs)):
            yield cell, "shows the address of an object; print what the reader should see"


def nothing_escapes_the_test(notebook: Notebook) -> Found:
    for cell in notebook.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if "nbval" in tag.lower()]
        comments = re.findall(r"#.*(NBVAL_\w+|PYTEST_VALIDATE\w+)", cell.source)
        for mark in tags + comments:
            yield cell, f"is marked {mark}; every output is tested"


# Names --------------------------------------------------------------------------------------


def names_are_bound_once(notebook: Notebook) -> Found:
    seen = {}
    for cell, tree in notebook.trees:
        for name in bound(tree):
            if name in seen:
                yield cell, f"binds {name} again (first in cell {seen[name]}); choose another name"
            seen.setdefault(name, cell.get("id"))


def bound(tree: ast.Module) -> list[str]:
    """The names that a cell binds at top level, except fig, ax, axes, _ and loop variables."""
    nodes = list(outside_functions(tree))
    names = [name for node in nodes for name in _binds(node)]
    loops = {n.id for node in nodes if isinstance(node, ast.For) for n in _names(node.target)}
    return [name for name in names if name not in REUSED | loops]


def _binds(node: ast.AST) -> list[str]:
    if isinstance(node, SCOPES):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


def _names(node: ast.AST) -> list[ast.Name]:
    return [n for n in ast.walk(node) if isinstance(n, ast.Name)]


def functions_read_their_arguments(notebook: Notebook) -> Found:
    known = {name for _, tree in notebook.trees for name in _callable_names(tree)}
    for cell, tree in notebook.trees:
        defined = {node.name for node in tree.body if isinstance(node, SCOPES)}
        for scope in symtable.symtable(cell.source, cell.get("id", ""), "exec").get_children():
            if scope.get_name() in defined:
                for name in sorted(globals_read(scope) - known - set(dir(builtins))):
                    yield cell, f"{scope.get_name()} reads {name}, which is not its argument"


def _callable_names(tree: ast.Module) -> list[str]:
    """What functions may use beside their arguments: imports, functions and classes."""
    kinds = (*SCOPES, ast.Import, ast.ImportFrom)
    nodes = [node for node in outside_functions(tree) if isinstance(node, kinds)]
    return [name for node in nodes for name in _binds(node)]


def globals_read(scope: symtable.SymbolTable) -> set[str]:
    here = {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
    return here.union(*(globals_read(child) for child in scope.get_children()))


# The wheel ----------------------------------------------------------------------------------


def prediction_before_run(notebook: Notebook) -> Found:
    predicted = False
    for cell in notebook.cells:
        if role(cell) == "run" and not predicted:
            yield cell, "has no predict- cell between it and the run- cell before it"
        predicted = role(cell) == "predict" or (predicted and role(cell) != "run")


def verification_after_run(notebook: Notebook) -> Found:
    wheel = [cell for cell in notebook.cells if role(cell) in ("run", "verify")]
    for cell, after in pairwise([*wheel, None]):
        if role(cell) == "run" and (after is None or role(after) == "run"):
            yield cell, "has no verify- cell between it and the next run- cell"


def prose_between_code(notebook: Notebook) -> Found:
    shown = [cell for cell in notebook.cells if role(cell) != "install"]
    for kind, group in groupby(shown, key=lambda cell: cell.cell_type):
        cells = list(group)
        if kind == "code" and len(cells) > CODE_CELLS_IN_A_ROW:
            yield cells[CODE_CELLS_IN_A_ROW], (
                f"is code cell number {CODE_CELLS_IN_A_ROW + 1} in a row; put a markdown cell "
                f"among them (at most {CODE_CELLS_IN_A_ROW})"
            )


# Figures ------------------------------------------------------------------------------------


def figures_are_described(notebook: Notebook) -> Found:
    for cell in notebook.code:
        said = description(cell) or ""
        if pictures(cell) and (not said or said.startswith("<")):
            yield cell, "its figure has no description; show it with helpers.plots.show"
        elif said != cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""):
            yield cell, "its alt text is not the figure's description; run `make notebooks`"


def pictures_stand_alone(notebook: Notebook) -> Found:
    """A second output, such as ``<Legend …>``, would take the figure's caption and label."""
    for cell in notebook.code:
        if pictures(cell) and len(cell.outputs) > 1:
            yield cell, "shows something beside its figure; end the cell with show(fig) alone"


def figures_have_labels(notebook: Notebook) -> Found:
    label = re.compile(rf"fig-{notebook.slug}-[a-z0-9-]+")
    for cell in notebook.code if notebook.is_chapter else []:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "")
        if pictures(cell) and not label.fullmatch(name):
            yield cell, f"its mystnb.figure.name is {name!r}; it must be fig-{notebook.slug}-…"


# The chapter --------------------------------------------------------------------------------


def frame(notebook: Notebook) -> Found:
    roles = [role(cell) for cell in notebook.cells]
    if not notebook.is_chapter or not roles:
        return
    for name in FRAME:
        if name not in roles:
            yield notebook.cells[0], f"the chapter has no {name} cell"
    present = [name for name in FRAME if name in roles]
    for before, after in pairwise(present):
        if roles.index(before) > roles.index(after):
            cell = notebook.cells[roles.index(before)]
            yield cell, f"stands after the first {after} cell; the order is {', '.join(FRAME)}"


def first_and_last(notebook: Notebook) -> Found:
    if notebook.is_chapter and notebook.cells:
        for cell, name in (notebook.cells[0], "title"), (notebook.cells[-1], "reading"):
            if role(cell) != name:
                yield cell, f"stands where the {name} cell must be"


def enough_turns(notebook: Notebook) -> Found:
    turns = sum(role(cell) == "run" for cell in notebook.cells)
    if notebook.is_chapter and turns < TURNS:
        yield notebook.cells[0], f"the chapter has {turns} run- cells; at least {TURNS} are needed"


def title_is_labelled(notebook: Notebook) -> Found:
    label = f"(ch-{notebook.slug})="
    for cell in notebook.cells[:1] if notebook.is_chapter else []:
        heading = f"# {int(notebook.number)} · "
        if not re.match(rf"{re.escape(label)}\n+{heading}\S", cell.source):
            yield cell, f"must begin with the label {label} and under it the heading {heading}…"


def exercises_are_numbered(notebook: Notebook) -> Found:
    exercises = [cell for cell in notebook.cells if role(cell) == "exercise"]
    for count, cell in enumerate(exercises if notebook.is_chapter else [], start=1):
        label = f"(ex-{notebook.slug}-{cell.get('id', '').removeprefix('exercise-')})="
        heading = f"### Exercise {int(notebook.number)}.{count}. "
        if f"{label}\n{heading}" not in cell.source:
            yield cell, f"needs the label {label} and right under it the heading {heading}…"


def exercises_are_solved(notebook: Notebook) -> Found:
    for cell in notebook.cells:
        name = cell.get("id", "").removeprefix("exercise-")
        if role(cell) == "exercise" and not _ends_in_check(_solution(notebook, name)):
            yield cell, f"needs a code cell solution-{name} or solution-{name}-… ending in check()"


def _solution(notebook: Notebook, name: str) -> list:
    own = re.compile(rf"solution-{re.escape(name)}(-.*)?")
    return [cell for cell in notebook.code if own.fullmatch(cell.get("id", ""))]


def _ends_in_check(cells: list) -> bool:
    tree = parse(cells[-1].source) if cells else None
    return bool(tree and tree.body) and "check" in called(ast.walk(tree.body[-1]))


# Prose --------------------------------------------------------------------------------------


def headings_nest(notebook: Notebook) -> Found:
    levels = [(cell, level) for cell in notebook.cells for level in _headings(cell)]
    for (_, above), (cell, level) in pairwise([({}, 0), *levels]):
        if level > above + 1:
            yield cell, f"a heading of level {level} stands under one of level {above}"
    for cell, _ in [found for found in levels if found[1] == 1][1:]:
        yield cell, "has a second heading of level 1"


def _headings(cell) -> list[int]:
    tokens = MARKDOWN.parse(cell.source) if cell.cell_type == "markdown" else []
    return [int(token.tag[1]) for token in tokens if token.type == "heading_open"]


def calm_prose(notebook: Notebook) -> Found:
    for cell in notebook.cells:
        words = " ".join(prose(cell.source)) if cell.cell_type == "markdown" else ""
        if "!" in words:
            yield cell, "has an exclamation mark in its prose"
        if re.search(r"\bsimply\b", words, re.IGNORECASE):
            yield cell, "has the word 'simply' in its prose; leave it out"


def prose(source: str) -> Iterator[str]:
    """The text of a markdown cell, of its admonitions too; not code, formulas and images."""
    for token in MARKDOWN.parse(source):
        if token.type == "inline":
            yield from (child.content for child in token.children if child.type == "text")
        directive = re.match(r"\{([\w:-]+)\}(.*)", token.info) if token.type == "fence" else None
        if directive and directive[1] not in VERBATIM:
            yield from prose(f"{directive[2]}\n\n{token.content}")


def lines_stay_text(notebook: Notebook) -> Found:
    """Where a sentence happens to be wrapped, MyST may see a comment or the start of a list."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            source = re.sub(r"\$\$.*?\$\$|```\w.*?```", "", cell.source, flags=re.DOTALL)
            for above, line in pairwise(["", *source.splitlines()]):
                if line.startswith("%"):
                    yield cell, f"MyST takes this line for a comment: {line}"
                if re.match(LIST_ITEM, line) and not re.match(rf"\s|$|```|:|{LIST_ITEM}", above):
                    yield cell, f"this line begins a list, right below a line of text: {line}"


PAGE_RULES = [was_run, has_its_outputs, no_errors]
STYLE_RULES = [
    was_run_top_to_bottom,
    no_stderr,
    ids,
    kinds,
    cell_length,
    line_length,
    is_python,
    defines_or_runs,
    one_figure_per_plot_cell,
    forbidden_code,
    no_addresses,
    nothing_escapes_the_test,
    names_are_bound_once,
    functions_read_their_arguments,
    prediction_before_run,
    verification_after_run,
    prose_between_code,
    figures_are_described,
    pictures_stand_alone,
    figures_have_labels,
    frame,
    first_and_last,
    enough_turns,
    title_is_labelled,
    exercises_are_numbered,
    exercises_are_solved,
    headings_nest,
    calm_prose,
    lines_stay_text,
]


# Whole files --------------------------------------------------------------------------------


def broken_rules(nb, path: Path, rules=(*PAGE_RULES, *STYLE_RULES)) -> list[str]:
    """One message, ``notebook.ipynb, cell id: …``, for each place where nb breaks a rule."""
    notebook = Notebook(nb, path)
    return [
        f"{path.name}, cell {cell.get('id') or f'number {nb.cells.index(cell) + 1}'}: {what}"
        for rule in rules
        for cell, what in rule(notebook)
    ]


def broken_file(path: Path, quick: bool = False) -> list[str]:
    """As ``broken_rules``, for a file: it is a notebook, and (not quick) in normal form."""
    try:
        nb = read(path)
    except (OSError, ValueError) as error:
        return [f"{path}: {error}"]
    if quick:
        return broken_rules(nb, path, PAGE_RULES)
    normal = path.read_bytes() == text(normalise(nb)).encode()
    advice = f"{path.name}: is not in normal form; run `make notebooks`"
    return broken_rules(nb, path) + ([] if normal else [advice])


def broken_order(names: list[str], toc: dict) -> list[str]:
    """Where the table of contents and the notebooks of a folder (sorted) disagree."""
    files = [entry for entry in _entries(toc) if entry.startswith("notebooks/")]
    listed = [Path(file).name.removesuffix(".ipynb") for file in files]
    missing = [f"_toc.yml: {name} is not in it" for name in names if name not in listed]
    extra = [f"_toc.yml: notebooks/{n} does not exist" for n in listed if n not in names]
    if missing or extra or listed == sorted(listed):
        return missing + extra
    return [f"_toc.yml: the order is {', '.join(listed)}; it must be that of their numbers"]


def _entries(toc) -> Iterator[str]:
    """The files of a table of contents, in order."""
    if isinstance(toc, list):
        for part in toc:
            yield from _entries(part)
    elif isinstance(toc, dict):
        yield from (str(toc[key]) for key in ("root", "file") if key in toc)
        for key in ("parts", "chapters", "sections"):
            yield from _entries(toc.get(key))


def broken_folder(folder: Path, quick: bool = False) -> list[str]:
    """The broken rules of all notebooks in a folder, and of the table of contents beside it."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        return [f"{folder}: there is no notebook in it"]
    found = [message for path in paths for message in broken_file(path, quick)]
    return found if quick else found + _broken_toc(folder.parent / "_toc.yml", paths)


def _broken_toc(path: Path, notebooks: list[Path]) -> list[str]:
    try:
        toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        return [f"{path.name}: {error}"]
    return broken_order([notebook.stem for notebook in notebooks], toc)


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    paths = [Path(a) for a in arguments if a != "--quick"] or [Path("notebooks")]
    found = [m for p in paths for m in (broken_folder if p.is_dir() else broken_file)(p, quick)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A small assignment for the tests of the grader: two questions by code, one by a person."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from grader.assignment import tidy
from grader.rules import TOOLS

TITLE = "# Toy\n\nThree questions, 8 points, about 90 minutes."
SETUP = """
import torch

torch.set_default_dtype(torch.float64)


def make_q1(seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=g) for n in (5, 5, 3)]
"""
ANSWER = '''
def half_square(x, y):
    """½ times the mean of the squared differences, one number."""
    ### BEGIN SOLUTION
    return 0.5 * (x - y).square().mean()
    ### END SOLUTION
'''
LOOK = """
def probe_q{n}(seed=0):
    x, y, z = make_q1(seed + {n})
    return {{"one": attempt({f}, x, y), "two": attempt({f}, z, 2 * z)}}


def look_q{n}(out, seed=0):
    same_shape("{f}(x, y)", out["one"], ())


look_q{n}(probe_q{n}())
"""
CHECK = '''
# Hidden check of question {n}
### BEGIN HIDDEN TESTS
def check_q{n}_{name}(out, seed):
    """The {name} value is half the mean of the squared differences."""
    x, y, z = make_q1(seed + {n})
    wanted = {wanted}
    same("{name}", out["{name}"], {factor} * wanted)


check_q{n}_{name}(probe_q{n}(7), 7)
### END HIDDEN TESTS
'''
ONE, TWO = "sum((x - y) ** 2) / 5", "sum(z**2) / 3"
QUESTION = """## Question {n}: {title} ({points} points)

**Given** `x`, `y`, shape `(n,)`.

**Wanted** one number."""


def code(name, source, points=None):
    cell = new_code_cell(source.strip("\n"), id=name)
    cell.metadata["nbgrader"] = {"points": points}
    return cell


def question(n, function, factor):
    return [
        new_markdown_cell(QUESTION.format(n=n, title=function, points=3), id=f"q{n}"),
        code(f"q{n}-answer", ANSWER.replace("half_square", function).replace("0.5", str(factor))),
        code(f"q{n}-look", LOOK.format(n=n, f=function)),
        code(f"q{n}-check-one", CHECK.format(n=n, name="one", wanted=ONE, factor=factor), 1),
        code(f"q{n}-check-two", CHECK.format(n=n, name="two", wanted=TWO, factor=factor), 2),
    ]


def toy():
    """The source notebook, tidy."""
    why = new_markdown_cell("Because one half goes with the square.", id="q3-person-why")
    why.metadata["nbgrader"] = {"points": 2}
    return tidy(
        new_notebook(
            cells=[
                new_markdown_cell(TITLE, id="title"),
                code("given-setup", SETUP),
                code("given-tools", TOOLS),
                *question(1, "half_square", 0.5),
                *question(2, "whole_square", 1.0),
                new_markdown_cell(QUESTION.format(n=3, title="why", points=2), id="q3"),
                why,
                new_markdown_cell("Two points for a reason.", id="teacher-q3"),
            ]
        )
    )

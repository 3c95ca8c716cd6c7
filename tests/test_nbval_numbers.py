"""The comparison of outputs: what passes, and above all what fails."""

import pytest
from nbformat.v4 import new_output

from tools.nbval_numbers import close, differences, output_differences

TENSOR = "tensor([[-0.0000,  1.2345],\n        [10.0000,  3.5000]])"

SAME = {
    "equal text": ("loss 0.25", "loss 0.25"),
    "last digit off by one": ("loss 0.123", "loss 0.124"),
    "off by one with a carry": ("loss 0.999", "loss 1.000"),
    "narrower number in a padded column": ("a   9.9", "a  10.0"),
    "exponent, last digit off by one": ("2.3e-05", "2.4e-05"),
    "next exponent": ("9.9e-06", "1.0e-05"),
    "percent": ("12.3%", "12.4%"),
    "tuple": ("(0.12, 3, 'a')", "(0.13, 3, 'a')"),
    "a zero that lost its sign": ("-0.00", "0.00"),
    "tensor whose zero lost its sign": (TENSOR, TENSOR.replace("[-0.0000", "[0.0000")),
    "finer print of one side": ("tensor([1.])", "tensor([1.0001])"),
    "no leading zero": ("p = .05", "p = .06"),
    "sentence end": ("It is 0.5.", "It is 0.6."),
    "nan": ("loss nan", "loss nan"),
    "both ends of a range": ("0.1-0.3", "0.2-0.3"),
    "plus or minus": ("1.6 ± 0.4", "1.7 ± 0.5"),
}

DIFFERENT = {
    "changed digit": ("loss 0.123", "loss 0.223"),
    "last digit off by two": ("loss 0.123", "loss 0.125"),
    "missing number": ("0.1 0.2 0.3", "0.1 0.2"),
    "extra number": ("0.1 0.2", "0.1 0.2 0.3"),
    "extra line": ("a\nb", "a\nb\nc"),
    "extra empty line": ("a\n", "a\n\n"),
    "missing line": ("a\nb\nc", "a\nb"),
    "changed word": ("loss 0.1", "risk 0.1"),
    "swapped words": ("train 0.1 test 0.1", "test 0.1 train 0.1"),
    "sign": ("-0.12", "0.12"),
    "plus sign": ("+0.12", "-0.12"),
    "nan for a number": ("loss 0.1", "loss nan"),
    "number for nan": ("loss nan", "loss 0.1"),
    "inf for nan": ("loss inf", "loss nan"),
    "sign of inf": ("loss -inf", "loss inf"),
    "truncated table": ("a 0.1\nb 0.2\nc 0.3", "a 0.1\n..\nc 0.3"),
    "exponent": ("1.2e-05", "1.2e-06"),
    "percent": ("12.3%", "12.5%"),
    "percent sign": ("12.3%", "12.3"),
    "tuple": ("(0.12, 0.5)", "(0.12, 0.7)"),
    "tensor": (TENSOR, TENSOR.replace("1.2345", "1.2347")),
    "tensor of whole numbers": ("tensor([1., 2.])", "tensor([1., 3.])"),
    "whole number": ("n = 200", "n = 201"),
    "whole percent": ("12%", "13%"),
    "range of whole numbers": ("3-5", "3-6"),
    "number glued to a word": ("w1.5x", "w1.6x"),
    "name with a number": ("layer_1", "layer_2"),
    "number glued to a unit": ("0.5s", "0.6s"),
    "version": ("1.2.3", "1.2.4"),
    "middle of a version": ("1.2.3", "1.3.3"),
    "between the units of a coarse and a fine print": ("0.1", "0.15"),
    "blank between words": ("a b", "a  b"),
    "blank at the end": ("a 0.1", "a 0.1 "),
    "indentation of a word": ("  a", "a"),
    "everything is gone": ("loss 0.1", ""),
}


@pytest.mark.parametrize("stored, now", SAME.values(), ids=SAME)
def test_texts_that_say_the_same(stored, now):
    assert differences(stored, now) == []
    assert differences(now, stored) == []


@pytest.mark.parametrize("stored, now", DIFFERENT.values(), ids=DIFFERENT)
def test_texts_that_differ(stored, now):
    assert differences(stored, now)
    assert differences(now, stored)


def test_tolerance_is_exactly_one_unit():
    assert close("0.1", "0.2") and close("1e5", "2e5") and close("100", "100")
    assert not close("0.1", "0.20001")
    assert not close("1e5", "300000")
    assert not close("100", "101")


def test_difference_shows_both_lines_and_marks_the_token():
    (found,) = differences("a\nloss 0.12  n 3", "a\nloss 0.52  n 3")
    assert found.split("\n") == [
        "stored: loss 0.12  n 3",
        "now:    loss 0.52  n 3",
        "             ^^^^",
    ]


def test_each_differing_line_is_shown():
    found = differences("a 1\nb 2\nc 3", "a 1\nb 3\nc 3\nd 4")
    assert [part.split("\n")[0] for part in found] == ["stored: b 2", "stored: (no line)"]


# Outputs ----------------------------------------------------------------------------------


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def shown(said="A line.", picture="AAAA", **more):
    return new_output("display_data", data={"text/plain": said, "image/png": picture, **more})


def test_equal_outputs_and_other_pixels_pass():
    stored = [stream("loss 0.1\n"), shown(picture="AAAA")]
    assert output_differences(stored, [stream("loss 0.1\n"), shown(picture="BBBB")]) == []


@pytest.mark.parametrize(
    "stored, now, said",
    [
        ([], [stream("hello\n")], "stored: (nothing)\nnow:    (stdout) hello"),
        ([stream("hello\n")], [], "stored: (stdout) hello\nnow:    (nothing)"),
        ([stream("hello\n")], [stream("hello\n"), shown()], "now:    (display_data image/png)"),
        ([stream("a")], [stream("a", "stderr")], "now:    (stderr) a"),
        ([stream("a", "stderr")], [stream("b", "stderr")], "now:    b"),
        ([shown("A line.")], [shown("Two lines.")], "now:    Two lines."),
        ([shown()], [shown(**{"text/html": "<b>"})], "now:    (display_data text/html) <b>"),
        ([shown(), stream("a")], [stream("a"), shown()], "now:    (stdout) a"),
        ([new_output("display_data", {"image/png": "AAAA"})], [], "stored: (display_data"),
        (
            [new_output("display_data", {"text/plain": "1"})],
            [new_output("execute_result", {"text/plain": "1"})],
            "now:    (execute_result text/plain) 1",
        ),
        (
            [new_output("display_data", {"application/json": {"a": [1, 0.5]}})],
            [new_output("display_data", {"application/json": {"a": [2, 0.5]}})],
            "now:      2,",
        ),
        (
            [new_output("error", ename="ValueError", evalue="p is 2", traceback=["x"])],
            [new_output("error", ename="ValueError", evalue="p is 3", traceback=["x"])],
            "now:    ValueError: p is 3",
        ),
    ],
)
def test_outputs_that_differ(stored, now, said):
    assert said in "\n".join(output_differences(stored, now))

import subprocess
import sys

import torch

from helpers import setup
from helpers.setup import COLOURS, LINES


def test_setup_makes_results_repeatable():
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(2)
    setup()
    assert torch.ones(1).dtype == torch.float64 and torch.get_num_threads() == 1


def test_every_series_has_a_line_style_of_its_own():
    assert len(set(map(str, LINES))) == len(COLOURS) == len(set(COLOURS)) == len(LINES)


def test_importing_the_helpers_does_nothing_and_is_light():
    code = "import sys, helpers; print(*{'torch', 'matplotlib', 'sklearn'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""

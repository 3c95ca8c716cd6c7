"""Hostile notebooks gain nothing and harm nothing: graded in one batch with honest ones.

Each answers question 1 wrongly and tries to get its points by other means, or to harm; question 2
is answered rightly, below it. So question 1 must give nothing, and question 2 all its points.
"""

import time

import nbformat
import pytest
from homework_toy import toy
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from grader.assignment import Assignment
from grader.collect import Submission
from grader.grade import GradeBook, Limits, grade_all
from grader.trial import submission
from tools.notebooks import text

LIMITS = Limits(cell=10, notebook=90)
WRONG = "\ndef half_square(x, y):\n    return torch.zeros(())\n"
CANARY = "a line that only the grade book has: 5f0c1e"

# Tries to make checks content, from within the process that calls the probe.
PATCHES = {
    "allclose": "torch.allclose = torch.equal = torch.isclose = lambda *a, **k: True",
    "comparisons": """
for name in ("__eq__", "__le__", "__lt__", "__ge__", "__gt__"):
    setattr(torch.Tensor, name, lambda *a: torch.ones((), dtype=torch.bool))
""",
    "same": "same = same_shape = lambda *a, **k: None",
    "checks": """
check_q1_one = check_q1_two = look_q1 = lambda *a, **k: None
""",
    "builtins": """
import builtins
builtins.AssertionError = type("A", (Exception,), {"__init__": lambda *a: None})
builtins.abs = builtins.sum = lambda *a: 0
builtins.isinstance = lambda *a: True
""",
    "zero differences": "torch.Tensor.__sub__ = torch.Tensor.__rsub__ = lambda a, b: torch.zeros(())",
    "random": "torch.randn = lambda *a, **k: torch.zeros(*a)",
    "tracer": """
import sys
def trace(frame, event, arg):
    if frame.f_code.co_name.startswith("check_"):
        frame.f_trace_lines = False
    return trace
sys.settrace(trace)
""",
    "asserts off": """
import ast
get_ipython().ast_transformers.append(type("T", (ast.NodeTransformer,), {
    "visit_Assert": lambda self, node: ast.Pass()})())
""",
}
FORGERIES = {
    "reply on every descriptor": """
import os, json
for number in range(3, 64):
    try:
        os.write(number, json.dumps({"value": ["float", "0.0"], "points": 100}).encode() + b"\\n")
    except OSError:
        pass
""",
    "nonce from the frames": """
import os, sys, json
def half_square(x, y):
    frame = sys._getframe()
    while frame and "request" not in frame.f_locals:
        frame = frame.f_back
    nonce = frame.f_locals["request"]["nonce"]
    answer = ["dict", [["one", ["float", "0.0"]], ["two", ["float", "0.0"]], ["points", ["int", "99"]]]]
    os.write(frame.f_locals["replies"], json.dumps({"value": answer, "nonce": nonce}).encode() + b"\\n")
    os._exit(0)
""",
    "patched json": """
import json
json.dumps = lambda *a, **k: '{"value": true, "points": 3, "max": 3}'
""",
    "patched encoder": """
import sys
sys.modules["__main__"].__dict__["encode"] = lambda *a, **k: ["dict", [["one", True], ["two", True]]]
""",
    "pickle": """
import pickle
class Evil:
    def __reduce__(self):
        import os
        return os.system, ("touch /tmp/owned",)
def half_square(x, y):
    return Evil()
""",
    "tensor subclass": """
class Right(torch.Tensor):
    def __eq__(self, other): return True
    __le__ = __lt__ = __ge__ = __gt__ = __eq__
def half_square(x, y):
    return torch.zeros(()).as_subclass(Right)
""",
    "float subclass": """
class Right(float):
    def __eq__(self, other): return True
    def __repr__(self): return "0.0'] + [1"
    __le__ = __lt__ = __sub__ = __rsub__ = __eq__
def half_square(x, y):
    return Right(0)
""",
    "probe redefined": """
import builtins
class Always(dict):
    def __setitem__(self, key, value):
        super().__setitem__(key, value)
get_ipython().user_ns["probe_q1"] = lambda seed=0: {"one": True, "two": True}
""",
}
VALUES = {
    "nan": "float('nan')",
    "inf": "torch.tensor(float('inf'))",
    "everything nan": "torch.full((5,), float('nan'))",
    "empty": "torch.empty(0)",
    "complex": "torch.zeros((), dtype=torch.complex128)",
    "true": "True",
    "none": "None",
    "huge integer": "10**5000",
    "huge tensor": "torch.zeros(10**7)",
    "expanded tensor": "torch.zeros(()).expand(10**6, 10**5)",
    "itself": "(lambda l: (l.append(l), l)[1])([])",
    "deep": "__import__('functools').reduce(lambda a, _: [a], range(10**5), 0)",
    "generator": "(i for i in iter(int, 1))",
    "function": "print",
    "text": "'1; import os'",
    "sparse": "torch.zeros(3, 3).to_sparse()",
    "meta": "torch.zeros(3, device='meta')",
    "dict with odd keys": "{torch.zeros(1): 1, (): 2, None: 3}",
    "surrogates": "'\\ud800' * 100",
}
HARM = {
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(10**6)",
    "loop in repr": """
class Slow:
    def __repr__(self):
        while True: pass
Slow()
""",
    "loop in del": """
class Slow:
    def __del__(self):
        while True: pass
x = Slow()
del x
""",
    "exit": "import os; os._exit(0)",
    "sys.exit": "import sys; sys.exit(0)",
    "quit": "quit()",
    "crash": "import ctypes; ctypes.string_at(0)",
    "kill all": "import os, signal; os.kill(-1, signal.SIGKILL)",
    "kill the first": "import os, signal; os.kill(1, signal.SIGKILL); os.kill(os.getppid(), 9)",
    "stop itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "memory": "x = []\nwhile True: x.append(bytearray(10**7))",
    "shared memory": """
import mmap
x = []
for _ in range(100):
    m = mmap.mmap(-1, 2**28)
    for i in range(0, 2**28, 4096):
        m[i] = 1
    x.append(m)
""",
    "memory of many": """
import os, time
for _ in range(30):
    if os.fork() == 0:
        x = bytearray(b"1") * (3 * 10**8)
        time.sleep(100)
time.sleep(100)
""",
    "disk": """
import os
for place in ("/tmp", "/dev/shm", "."):
    n = 0
    try:
        for n in range(1000):
            with open(f"{place}/{n}", "wb") as file:
                file.write(bytes(10**7))
    except OSError:
        assert n < 10
""",
    "many files": """
import os, time
for place in ("/tmp", "/dev/shm"):
    if os.fork() == 0:
        for n in range(10**9):
            os.mknod(f"{place}/{n}")
time.sleep(100)
""",
    "page tables": """
import ctypes, os, torch
file = os.open(torch.__path__[0] + "/lib/libtorch_cpu.so", os.O_RDONLY)
size, populate = ctypes.c_size_t(os.fstat(file).st_size), 0x8001
while ctypes.CDLL(None).mmap(None, size, 1, populate, file, ctypes.c_long(0)) != -1: pass
""",
    "alarm": """
import signal
def stop(*args): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.5)
""",
    "clocks stopped": "import time\ntime.time = time.monotonic = time.perf_counter = lambda: 0.0",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "threads": """
import threading, time
try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,)).start()
except RuntimeError:
    pass
""",
    "descriptors": "import os\nx = []\ntry:\n    while True: x.append(os.dup(1))\nexcept OSError: pass",
    "print for ever": "while True: print('x' * 10**6)",
    "print much": "for _ in range(1000): print('x' * 10**5)",
    "print to the channel": "import os\nwhile True: os.write(4, b'x' * 10**6)",
    "daemon": """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(10**4)
    os._exit(0)
""",
    "atexit": "import atexit, time\natexit.register(time.sleep, 10**4)",
    "signals": """
import signal
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
""",
    "recursion": "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "import broken": "import sys\nfor name in list(sys.modules): sys.modules[name] = None",
    "globals cleared": "globals().clear()",
    "input": "input('your name')",
    "breakpoint": "breakpoint()",
    "magics": """
for line in ("cd /", "env HOME=/x", "pdb on", "xmode Verbose"):
    get_ipython().run_line_magic(*line.split(" ", 1))
for line in ("sleep 1000", "cat /etc/shadow; nohup sleep 1000 &"):
    get_ipython().run_cell_magic("bash", "--bg", line)
""",
    "shell": "get_ipython().system('rm -rf / 2>/dev/null; kill -9 -1')",
}
# Each must raise, or leave nothing: it asserts in the sandbox that it found nothing.
SPIES = {
    "network": """
import socket
for place in (("1.1.1.1", 53), ("127.0.0.1", 22), ("localhost", 8888)):
    try:
        socket.create_connection(place, 1)
        FOUND.append(place)
    except OSError: pass
try:
    FOUND.append(socket.gethostbyname("pypi.org"))
except OSError: pass
FOUND += [i for _, i in socket.if_nameindex() if i != "lo"]
""",
    "environment": """
import os
FOUND += [k for k in os.environ if k.startswith(("PIP", "SECRET", "SSH", "GIT"))]
try:
    FOUND += ["environ"] if "SECRET" in open("/proc/self/environ").read() else []
except OSError: pass
""",
    "files": """
import os
for folder, names, files in os.walk("/"):
    if folder.startswith(("/usr", "/proc", "/dev", "/lib")) or "site-packages" in folder:
        continue
    FOUND += [f for f in files if f.endswith(".ipynb") or f in ("key", "grades.csv", "shadow", "passwd")]
""",
    "hidden packages": """
for name in ("helpers", "grader", "tools", "nbgrader.api", "d2l.torch"):
    try:
        __import__(name)
        FOUND.append(name)
    except ImportError: pass
""",
    "other processes": """
import os
mine = [p for p in os.listdir("/proc") if p.isdigit()]
FOUND += [open(f"/proc/{p}/cmdline").read() for p in mine if int(p) > 50]
FOUND += ["many"] if len(mine) > 5 else []
""",
    "root of the first process": """
import os
for place in ("/proc/1/root/etc/shadow", "/proc/1/environ", "/proc/1/cwd/..", "/proc/kcore"):
    try: FOUND.append(open(place, "rb").read(100))
    except OSError: pass
FOUND[:] = [f for f in FOUND if f and b"SECRET" in f]
""",
    "descriptors of others": """
import os
for p in (p for p in os.listdir("/proc") if p.isdigit()):
    for n in os.listdir(f"/proc/{p}/fd") if os.access(f"/proc/{p}/fd", os.R_OK) else ():
        try: to = os.readlink(f"/proc/{p}/fd/{n}")
        except OSError: continue
        if not to.startswith(("pipe:", "/dev/null", "/proc", "anon_inode:", "socket:")):
            FOUND.append((p, to))
""",
    "limits": """
import resource
for name in ("NPROC", "DATA", "FSIZE", "NOFILE", "CORE"):
    try:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (resource.RLIM_INFINITY,) * 2)
        FOUND.append(name)
    except (ValueError, OSError): pass
""",
    "writable places": """
import os
for folder, names, files in os.walk("/"):
    if folder.startswith(("/proc", "/tmp", "/dev/shm")): continue
    if os.access(folder, os.W_OK):
        try:
            open(folder + "/x", "w").close()
            FOUND.append(folder)
        except OSError: pass
""",
    "rights": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
FOUND += [n for n in ("setuid", "setgid") if getattr(libc, n)(0) == 0 and os.getuid() == 0 and 0]
for name, args in {"unshare": (0x10000000,), "ptrace": (16, 1, 0, 0), "memfd_create": (b"x", 0),
                   "mount": (b"none", b"/tmp", b"tmpfs", 0, 0), "shmget": (0, 4096, 0o1600)}.items():
    if getattr(libc, name)(*args) >= 0: FOUND.append(name)
status = open("/proc/self/status").read()
FOUND += [l for l in status.splitlines() if l.startswith("CapEff") and int(l.split()[1], 16)]
""",
    "hidden checks": """
import gc, sys, warnings
warnings.simplefilter("ignore")
names = [getattr(o, "__name__", "") for o in gc.get_objects() if callable(o)]
FOUND += [n for n in names if isinstance(n, str) and n.startswith("check_q")]
texts = [s for s in gc.get_objects() if isinstance(s, dict) for s in s.values() if isinstance(s, str)]
FOUND += [s for s in texts if "half the mean of the squared" + " differences." in s and "check" in s]
""",
}


def spy(code):
    """Code that raises the answer to question 1 only where it found something."""
    return f"FOUND = []\n{code}\nassert not FOUND, FOUND\nWELL = True\n{WRONG}"


def inside_the_answer(code):
    """The same code, run when the probe calls the answer."""
    return "def half_square(x, y):\n" + "\n".join(
        "    " + line for line in code.strip().split("\n")
    )


ATTACKS = {
    **{f"patch {name}": code + WRONG for name, code in PATCHES.items()},
    **{f"forge {name}": WRONG + code for name, code in FORGERIES.items()},
    **{
        f"value {name}": f"def half_square(x, y):\n    return {code}"
        for name, code in VALUES.items()
    },
    **{f"harm {name}": WRONG + code for name, code in HARM.items()},
    **{f"harm at the call, {name}": inside_the_answer(code) for name, code in HARM.items()},
    **{f"spy {name}": spy(code) for name, code in SPIES.items()},
}
QUICK = [  # one or two of each kind, for every change
    "patch allclose", "patch comparisons", "forge reply on every descriptor",
    "forge nonce from the frames", "forge patched encoder", "value nan", "value huge tensor",
    "value deep", "harm exit", "harm at the call, loop", "harm memory", "harm at the call, daemon",
    "spy network", "spy files", "spy rights", "spy hidden checks",
]  # fmt: skip


def notebook(assignment, answer):
    return submission(assignment, {"q1-answer": answer})


def graded(tmp, names):
    """Grade a batch of attacks with honest notebooks among them. Returns {name: result}."""
    source = tmp / "source" / "toy.ipynb"
    source.parent.mkdir()
    source.write_text(text(toy()), "utf-8")
    assignment = Assignment.load(source)
    book = GradeBook(tmp / "grades")
    (book.folder / "secret").write_text(CANARY)
    answers = {name: notebook(assignment, ATTACKS[name]) for name in names}
    answers |= {f"honest {i}": submission(assignment) for i in range(2)}
    found = []
    for number, (name, nb) in enumerate(answers.items()):
        path = tmp / f"{number}.ipynb"
        path.write_text(nbformat.v4.writes_json(nb), "utf-8", "surrogatepass")
        found.append(Submission(name, "toy", path, path.name))
    start = time.monotonic()
    results = {s.student: r for s, r in grade_all({"toy": source}, found, book, 2, LIMITS)}
    print(f"{len(found)} notebooks in {time.monotonic() - start:.0f} s")
    assert (book.folder / "secret").read_text() == CANARY
    return results


def points(result):
    return {question["question"]: question["points"] for question in result["questions"]}


@pytest.fixture(scope="module")
def quick(sandboxes, tmp_path_factory):
    return graded(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(scope="module")
def long(sandboxes, tmp_path_factory):
    return graded(tmp_path_factory.mktemp("long"), [name for name in ATTACKS if name not in QUICK])


# What spoils the student's own process spoils the later answers too: theirs, nobody else's.
SPOILS_ITSELF = ("zero differences", "random", "encoder", "import broken", "globals cleared")


def gains_and_harms_nothing(result):
    found = points(result)
    assert found["q1"] == 0, result["questions"][0]
    if not result["student"].endswith(SPOILS_ITSELF):
        assert found["q2"] == 3, (result["notes"], result["questions"][1])


@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_notebook_gains_and_harms_nothing(quick, name):
    gains_and_harms_nothing(quick[name])


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in QUICK])
def test_every_hostile_notebook_gains_and_harms_nothing(long, name):
    gains_and_harms_nothing(long[name])


def test_honest_notebooks_in_the_same_batch_keep_all_points(quick):
    assert [points(quick[f"honest {i}"]) for i in range(2)] == [{"q1": 3, "q2": 3, "q3": 0}] * 2


@pytest.mark.parametrize("name", [name for name in QUICK if name.startswith("spy")])
def test_a_spy_finds_nothing(quick, name):
    cells = {cell["id"]: cell for cell in quick[name]["notebook"]["cells"]}
    assert cells["q1-answer"]["outputs"] == [], cells["q1-answer"]["outputs"]


@pytest.mark.long
@pytest.mark.parametrize("name", [f"spy {n}" for n in SPIES if f"spy {n}" not in QUICK])
def test_no_spy_finds_anything(long, name):
    cells = {cell["id"]: cell for cell in long[name]["notebook"]["cells"]}
    assert cells["q1-answer"]["outputs"] == [], cells["q1-answer"]["outputs"]


# With the stock executor the suite goes red ---------------------------------------------------


def stock_points(nb):
    """What a grader gives that runs the checks in the student's own kernel, as nbgrader does."""
    client = NotebookClient(nb, timeout=60, allow_errors=False)
    given = {}
    with client.setup_kernel():
        for index, cell in enumerate(nb.cells):
            told = cell.metadata.get("nbgrader", {})
            try:
                if cell.cell_type == "code":
                    client.execute_cell(cell, index)
            except CellExecutionError:
                continue
            if told.get("grade") and cell.cell_type == "code":
                given[cell["id"]] = told["points"]
    return given


@pytest.mark.parametrize("name", ["patch zero differences", "patch same"])
def test_the_stock_executor_gives_points_to_an_attack(name):
    nb = toy()
    next(cell for cell in nb.cells if cell["id"] == "q1-answer").source = ATTACKS[name]
    assert {"q1-check-one", "q1-check-two"} & set(stock_points(nb))

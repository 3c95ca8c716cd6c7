"""The lock, pyproject.toml, environment.yml and d2l's version agree with each other."""

import re
import tomllib
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
ENVIRONMENT = (ROOT / "environment.yml").read_text("utf-8")
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
CONDA_ONLY = {"python", "pip"}
# What torch's ordinary Linux build wants and its CPU build does not.
GPU = re.compile(r"(nvidia|cuda|triton)\b.*")
# The lock is complete for the machine it was made on; pip adds what another system needs.
LOCKED_FOR = {
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}
WITH_D2L = ["Makefile", "environment.yml", "postBuild", "pyproject.toml"]


def locked(lock):
    """Return {canonical name: version} of a lock's ``name==version`` lines."""
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}


def malformed_lines(lock):
    """Return the lines that are neither a comment nor a plain ``name==public version``."""
    plain = re.compile(r"#[^:]*|[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*")
    return [line for line in lock.splitlines() if not plain.fullmatch(line)]


def direct(pyproject, extras=("test", "pdf", "homework")):
    """Return the direct requirements, those of the named extras included."""
    project = tomllib.loads(pyproject)["project"]
    texts = [text for extra in extras for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in project["dependencies"] + texts]


def outside_range(lock, pyproject):
    """Return what each direct requirement finds missing or out of range in the lock."""
    pins = locked(lock)
    return [
        f"{need}: the lock has {pins.get(canonicalize_name(need.name))}"
        for need in direct(pyproject)
        if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))
    ]


def wanted(name, extras):
    """Return the installed package's requirements that hold where the lock was made."""
    environments = [LOCKED_FOR | {"extra": extra} for extra in {"", *extras}]
    needs = [Requirement(text) for text in requires(name) or []]
    return [n for n in needs if not n.marker or any(map(n.marker.evaluate, environments))]


def missing_from(lock, pyproject):
    """Return the requirements of requirements that the lock lacks or pins out of range."""
    pins, found, queue = locked(lock), [], direct(pyproject)
    seen = set()
    while queue:
        need = queue.pop()
        name = canonicalize_name(need.name)
        if GPU.fullmatch(name) or (name, *sorted(need.extras)) in seen:
            continue
        seen.add((name, *sorted(need.extras)))
        if name not in pins or not need.specifier.contains(pins[name], prereleases=True):
            found.append(f"{need}: the lock has {pins.get(name)}")
        else:
            queue += wanted(name, need.extras)
    return found


def not_installed_as_locked(lock):
    """Return the packages whose installed version differs from the lock's."""
    installed = {name: Version(version(name)).public for name in locked(lock)}
    return [f"{n}: {installed[n]}, not {v}" for n, v in locked(lock).items() if installed[n] != v]


def wanting_a_later_python(spans):
    """Return the names in {name: Requires-Python} that exclude Python 3.11.0."""
    return [name for name, span in spans.items() if not SpecifierSet(span or "").contains("3.11.0")]


def conda_ranges(environment):
    """Return {name: range} of an environment.yml's conda packages."""
    texts = [text for text in yaml.safe_load(environment)["dependencies"] if isinstance(text, str)]
    pairs = [re.fullmatch(r"([\w.-]+)\s*(.*)", text).groups() for text in texts]
    return {name: SpecifierSet(span) for name, span in pairs if name not in CONDA_ONLY}


def conda_disagreements(environment, pyproject):
    """Return the names whose range differs between environment.yml and pyproject.toml."""
    ours = {CONDA_NAMES.get(n.name, n.name): n.specifier for n in direct(pyproject, extras=())}
    theirs = conda_ranges(environment)
    return sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))


def d2l_versions(texts):
    """Return the set of d2l versions that the texts name."""
    named = re.compile(r"(?im)^d2l = ([\w.]+)$|\bd2l(?:==| )(\d[\w.]*)")
    return {"".join(match) for text in texts for match in named.findall(text)}


def doctored(text, old, new):
    """Return the text with one thing changed, which must be there to be changed."""
    assert old in text, f"{old!r} is not in the text to be doctored"
    return text.replace(old, new, 1)


def pin(name):
    """Return the lock's line of one package."""
    return f"{name}=={locked(LOCK)[name]}\n"


def test_direct_requirements_are_locked_in_range():
    assert outside_range(LOCK, PYPROJECT) == []


@pytest.mark.parametrize("new", ["", "numpy==1.26.4\n", "numpy==3.0\n"])
def test_a_requirement_missing_or_out_of_range_is_found(new):
    found = outside_range(doctored(LOCK, pin("numpy"), new), PYPROJECT)
    assert len(found) == 1 and found[0].startswith("numpy<3,>=2.0: the lock has")


def test_the_lock_is_complete():
    assert missing_from(LOCK, PYPROJECT) == []


@pytest.mark.parametrize("new", ["", "jinja2==2.0\n"])
def test_an_incomplete_lock_is_found(new):
    pinned = re.search(r"(?im)^jinja2==.*\n", LOCK).group()
    found = missing_from(doctored(LOCK, pinned, new), PYPROJECT)
    assert found and all(line.lower().startswith("jinja2") for line in found)


def test_the_lock_is_plain():
    assert malformed_lines(LOCK) == []
    assert len(locked(LOCK)) > 100


@pytest.mark.parametrize(
    "line",
    [
        "torch==2.13.0+cpu",
        "torch @ file:///somewhere/torch.whl",
        "--index-url https://example.org/simple",
        "# from https://example.org",
        "numpy>=2",
        "-e .",
    ],
)
def test_a_line_that_is_not_plain_is_found(line):
    assert malformed_lines(LOCK + line + "\n") == [line]


def test_installed_versions_equal_the_lock():
    assert not_installed_as_locked(LOCK) == []


def test_another_installed_version_is_found():
    found = not_installed_as_locked(doctored(LOCK, pin("numpy"), "numpy==2.0.0\n"))
    assert len(found) == 1 and found[0].endswith("not 2.0.0")


def test_the_lock_installs_on_python_3_11_0():
    spans = {name: metadata(name)["Requires-Python"] for name in locked(LOCK)}
    assert wanting_a_later_python(spans) == []


def test_a_package_that_wants_a_later_python_is_found():
    spans = {"fine": ">=3.11", "silent": None, "late": ">=3.11.5", "later": ">=3.12"}
    assert wanting_a_later_python(spans) == ["late", "later"]


def test_torch_is_pinned_alike_in_makefile_and_lock():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    pins = locked(LOCK)
    assert f"\nTORCH = {pins['torch']}\n" in makefile
    assert f"\nTORCHVISION = {pins['torchvision']}\n" in makefile


def test_conda_ranges_equal_pyprojects():
    assert conda_disagreements(ENVIRONMENT, PYPROJECT) == []


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("  - scipy>=1.14,<2\n", "", "scipy"),
        ("scipy>=1.14", "scipy>=1.13", "scipy"),
        ("pytorch-cpu>=2.6,<3", "pytorch-cpu", "pytorch-cpu"),
        ("  - pip:\n", "  - seaborn\n  - pip:\n", "seaborn"),
    ],
)
def test_a_conda_disagreement_is_found(old, new, name):
    assert conda_disagreements(doctored(ENVIRONMENT, old, new), PYPROJECT) == [name]


def test_conda_and_pyproject_want_the_same_python():
    wanted_python = tomllib.loads(PYPROJECT)["project"]["requires-python"]
    assert f"python{wanted_python}" in yaml.safe_load(ENVIRONMENT)["dependencies"]


def test_d2l_has_one_version_and_stays_out_of_the_lock():
    texts = [(ROOT / name).read_text("utf-8") for name in WITH_D2L]
    assert d2l_versions(texts) == {version("d2l")}
    assert all(d2l_versions([text]) for text in texts)
    assert "d2l" not in locked(LOCK)
    assert "d2l" not in {need.name for need in direct(PYPROJECT)}


def test_two_d2l_versions_are_found():
    assert d2l_versions(["x\nD2L = 1.0.3\n", "d2l==1.0.2", "d2l 1.0.1 pins"]) == {
        "1.0.1",
        "1.0.2",
        "1.0.3",
    }


def test_the_peers_of_the_benchmarks_stay_out_of_the_lock():
    everything, without = (direct(PYPROJECT, extras) for extras in [("bench",), ()])
    peers = everything[len(without):]
    assert {need.name for need in peers} >= {"lightning", "skorch"}
    assert not {canonicalize_name(need.name) for need in peers} & locked(LOCK).keys()
    assert all({span.operator for span in need.specifier} == {">=", "<"} for need in peers)
    assert not {need.name for need in peers} & conda_ranges(ENVIRONMENT).keys()

"""A process in which a student's code can harm nobody: bubblewrap, limits and a watchdog.

It sees Python and its packages, read-only, and a small folder of its own in memory; no network,
no other process, no home folder, no environment variable. It ends with the ``with`` block.

    with Sandbox() as box:
        box.ask({"source": "x = 1"}, seconds=10)

Two limits are the kernel's own for each process (data and open files), one for all of them
together (processes); memory of all of them together, output and time are watched from outside.
"""

import contextlib
import ctypes.util  # noqa: F401  (loaded before workers fork)
import functools
import itertools
import json
import os
import platform
import secrets
import select
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

MB = 2**20
MEMORY = 2048 * MB  # of all processes of a sandbox together
FOLDER = 64 * MB  # /tmp and /dev/shm, each
NAME = 16 * 2**10  # what a file counts, even if empty: more than it takes, since nobody needs many
REPLY = 16 * MB
PROCESSES = 64
START_SECONDS = 120
TICK = 0.2
FIRST_UID = 2_000_000_000  # nobody's: as root, each sandbox gets a user of its own, see `_uid`
HIDDEN = ("d2l", "helpers", "nbgrader")  # packages in which answers stand, or that grade

ADVICE = """\
Grading runs students' code in a sandbox, and the sandbox does not start: {why}
It needs Linux and bubblewrap. Install it:
    Debian, Ubuntu:  apt-get install bubblewrap        Fedora:  dnf install bubblewrap
Where bubblewrap is installed but may not make namespaces (Ubuntu 24.04, some containers), allow
it by `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or start the container with
`--security-opt seccomp=unconfined --cap-add SYS_ADMIN`. On macOS and Windows use a Linux machine,
a virtual machine or WSL 2. Nothing was graded, and nobody lost a point."""


class SandboxError(RuntimeError):
    """The sandbox could not be started: nothing to do with what a student wrote."""


class Died(Exception):
    """What ran in the sandbox ended it, or had to be ended; the message says why."""


@functools.cache
def bubblewrap() -> str:
    """The path of ``bwrap``; raises SandboxError with advice where there can be no sandbox."""
    if sys.platform != "linux":
        raise SandboxError(ADVICE.format(why=f"this is {platform.system()}, not Linux."))
    if not (path := shutil.which("bwrap")):
        raise SandboxError(ADVICE.format(why="there is no program `bwrap` on the PATH."))
    if platform.machine() not in ARCHITECTURES:
        raise SandboxError(ADVICE.format(why=f"no filter for {platform.machine()} processors."))
    return path


def require() -> None:
    """Start a sandbox and see it answer; raises SandboxError with advice where it doesn't."""
    with Sandbox() as box:
        box.ask({"source": "import torch"}, START_SECONDS)


# What may not be called in it ---------------------------------------------------------------

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers of system calls, on these two. Denied are those that make memory which belongs to no
# process, or new namespaces, or that look into others, or reach far into the kernel.
CLONE, CLONE3 = (56, 220), (435, 435)
DENIED = {
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438), "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265), "bpf": (321, 280), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104),
}  # fmt: skip
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
NEW_NAMESPACE = 0x7E020080  # the flags of clone that ask for one


def seccomp_filter(machine: str) -> bytes:
    """A program of the kernel's filter language: allows all calls but those denied."""
    arch, which = ARCHITECTURES[machine], list(ARCHITECTURES).index(machine)
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    program += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, EPERM)]  # another numbering
    program += [(EQUAL, 0, 1, CLONE3[which]), (RETURN, 0, 0, ENOSYS)]  # libc then takes clone
    for numbers in DENIED.values():
        program += [(EQUAL, 0, 1, numbers[which]), (RETURN, 0, 0, EPERM)]
    program += [(EQUAL, 0, 3, CLONE[which]), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, NEW_NAMESPACE)]
    program += [(RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in program)


# What can be seen in it ---------------------------------------------------------------------


@functools.cache
def _mounts() -> tuple[str, ...]:
    """Arguments of bwrap: the system's libraries, Python and its packages, read-only."""
    arguments = []
    for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(folder):
            arguments += ["--symlink", os.readlink(folder), folder]
        else:
            arguments += ["--ro-bind-try", folder, folder]
    for path in ("ld.so.cache", "localtime", "alternatives", "fonts"):
        arguments += ["--ro-bind-try", f"/etc/{path}", f"/etc/{path}"]
    for folder in sorted({sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix}):
        if not folder.startswith("/usr/"):
            for parent in list(Path(folder).parents)[-2::-1]:  # bwrap would let root alone pass
                arguments += ["--perms", "0755", "--dir", str(parent)]
            arguments += ["--ro-bind", folder, folder]
    for folder in {sysconfig.get_path(name) for name in ("purelib", "platlib")}:
        for package in HIDDEN:
            if (Path(folder) / package).is_dir():
                arguments += ["--tmpfs", f"{folder}/{package}"]
    return tuple(arguments)


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Arguments that show matplotlib's list of fonts: making it anew would take seconds."""
    import matplotlib.font_manager

    name = f"fontlist-v{matplotlib.font_manager.FontManager.__version__}.json"
    path = Path(matplotlib.get_cachedir()) / name
    return ("--ro-bind-try", str(path), f"/tmp/matplotlib/{name}")


ENVIRONMENT = {
    "HOME": "/tmp/home",
    "LANG": "C.UTF-8",
    "LOGNAME": "student",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "IPYTHONDIR": "/tmp/ipython",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
    "USER": "student",
}
_numbers = itertools.count()


def _uid() -> int:
    """A user whom nobody else is: two sandboxes never share one, so neither share a limit."""
    return FIRST_UID + (os.getpid() % 100_000) * 100 + next(_numbers) % 100


def _command(seccomp: int) -> list[str]:
    """bwrap and its arguments, up to the program to run."""
    root = os.getuid() == 0
    own = "ipc pid net uts cgroup-try" if root else "user ipc pid net uts cgroup-try"
    command = [bubblewrap(), *(f"--unshare-{name}" for name in own.split())]
    command += ["--die-with-parent", "--new-session", "--seccomp", str(seccomp)]
    # As root, the mounts are made by root, who can read all that must be shown; the two rights
    # that are left let `inside.confine` become somebody else, and are lost by that.
    command += ["--cap-drop", "ALL"]
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else []
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for folder in ("/dev/shm", "/tmp"):
        command += ["--perms", "1777", "--size", str(FOLDER), "--tmpfs", folder]
    command += _mounts()  # behind /tmp, since Python may be installed in it
    for folder in ("home", "ipython", "matplotlib"):
        command += ["--perms", "0777", "--dir", f"/tmp/{folder}"]
    command += [*_fonts(), "--ro-bind", str(Path(__file__).with_name("inside.py")), "/inside.py"]
    return [*command, "--chdir", "/tmp/home", "--remount-ro", "/"]


class Sandbox:
    """One sandbox, for one student's notebook. ``ask`` it; leave the ``with`` block to end it."""

    def __init__(self, memory: int = MEMORY):
        limits = {"NPROC": PROCESSES, "DATA": memory, "FSIZE": FOLDER, "NOFILE": 256, "CORE": 0}
        limits["uid"] = _uid()
        self.memory, self.buffer, self.took = memory, b"", 0.0
        with tempfile.TemporaryFile() as seccomp:
            bubblewrap()
            seccomp.write(seccomp_filter(platform.machine()))
            seccomp.seek(0)
            self.process = subprocess.Popen(
                [*_command(seccomp.fileno()), sys.executable, "-s", "-P", "/inside.py",
                 json.dumps(limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                pass_fds=[seccomp.fileno()],
                start_new_session=True,  # a Ctrl-C at the terminal is not for it
                bufsize=0,
            )  # fmt: skip
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            os.set_blocking(pipe.fileno(), False)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        try:
            reply = json.loads(self._exchange(b"", START_SECONDS))
        except Died as died:
            self.close()
            said = (self.process.stderr.read(4000) or b"").decode(errors="replace").strip()
            raise SandboxError(ADVICE.format(why=said or died)) from died
        except BaseException:
            self.close()
            raise
        finally:
            self.process.stderr.close()  # what runs in it could open it as /proc/1/fd/2
        if "ready" not in reply:
            raise SandboxError(ADVICE.format(why=f"it said {reply}"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """End all that runs in it, and wait until it has ended."""
        if self.process.poll() is None:
            for first in family_of(self.process.pid)[1:2]:  # in it; with it end all others
                with contextlib.suppress(ProcessLookupError):
                    os.kill(first, signal.SIGKILL)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()

    def ask(self, request: dict, seconds: float) -> dict:
        """Send a request; returns the reply, which a student may have written.

        Raises Died if what runs in the sandbox ends, takes longer than that many seconds (see
        `Clock`; ``took`` then has them), takes too much memory, or says anything but one reply
        to this request.
        """
        nonce, self.took = secrets.token_hex(8), 0.0
        if self.buffer or select.select([self.process.stdout], [], [], 0)[0]:
            raise Died("the code wrote into the grader's channel, or ended itself")
        line = self._exchange(json.dumps({**request, "nonce": nonce}).encode() + b"\n", seconds)
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Died("the code wrote into the grader's channel") from error
        if not isinstance(reply, dict) or reply.pop("nonce", None) != nonce:
            raise Died("the code wrote into the grader's channel")
        return reply | {"size": len(line)}

    def _exchange(self, data: bytes, seconds: float) -> bytes:
        """Write data, read one line."""
        into, out = self.process.stdin, self.process.stdout
        clock, look = Clock(self.process.pid), time.monotonic() + TICK
        try:
            while b"\n" not in self.buffer:
                ready, able, _ = select.select([out], [into] if data else [], [], TICK)
                try:
                    data = data[os.write(into.fileno(), data[:65536]) :] if able else data
                    piece = os.read(out.fileno(), 2**20) if ready else None
                except BrokenPipeError:
                    piece = b""
                if piece == b"":
                    raise Died("the code ended Python, or Python crashed")
                self.buffer += piece or b""
                if len(self.buffer) > REPLY:
                    raise Died("the code sent too much")
                if time.monotonic() > look:
                    family = family_of(self.process.pid)
                    if memory_of(family) > self.memory:
                        raise Died(f"it took more than {self.memory // MB} MB of memory")
                    if clock.seconds(family) > seconds:
                        raise Died(f"it took longer than {seconds:.0f} s")
                    look = time.monotonic() + TICK
        finally:
            self.took = clock.seconds(family_of(self.process.pid))
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line


class Clock:
    """The time that a process and those below it take, without the time that others take.

    On a busy machine, waiting for a processor is nobody's fault, so it doesn't count; but a
    quarter of the time on the wall counts in any case, so that everything has an end.
    """

    def __init__(self, pid: int):
        self.start, self.before, self.waited = time.monotonic(), waited(family_of(pid)), 0.0

    def seconds(self, family: list[int]) -> float:
        wall = time.monotonic() - self.start
        self.waited = max(self.waited, waited(family) - self.before)
        return max(wall / 4, wall - self.waited)


def memory_of(family: list[int]) -> int:
    """Bytes that processes hold (of files that are mapped: nothing), and their files' names."""
    return sum(map(_held, family)) + NAME * sum(map(_names, family[1:2]))


def waited(family: list[int]) -> float:
    """Seconds that the one of the processes that waited longest was ready and got no processor."""
    found = [0.0]
    for pid in family:
        try:
            found.append(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9)
        except (OSError, IndexError, ValueError):
            continue  # it has ended, or this kernel doesn't count
    return max(found)


def family_of(pid: int) -> list[int]:
    """A process and all below it."""
    children = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text(errors="replace")
            except OSError:
                continue  # it has just ended
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


def _held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return 1024 * sum(
        int(line.split()[1])
        for line in lines
        if line.startswith(("RssAnon:", "RssShmem:", "VmPTE:"))
    )


def _names(pid: int) -> int:
    """How many files there are in the folders in memory that a process of a sandbox sees."""
    root = Path(f"/proc/{pid}/root")
    number = 0
    with contextlib.suppress(OSError):  # it has ended
        for folder in ("tmp", "dev/shm") if (root / "inside.py").exists() else ():
            found = os.statvfs(root / folder)
            number += found.f_files - found.f_ffree
    return number

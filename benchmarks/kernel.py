"""Runs a notebook in a kernel of its own, so that a run that is stopped also ends the kernel."""

import asyncio
import subprocess
from pathlib import Path


def run_notebook(nb, folder: Path, timeout: float | None = None, **options) -> None:
    """Execute nb in place, from a folder; options as ``env`` go to the kernel's start.

    Signals stay with the run's own handlers. Raises what nbclient raises if a cell does.
    """
    from nbclient import NotebookClient

    client = NotebookClient(
        nb, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(_execute(client, options))


class _Loop(asyncio.SelectorEventLoop):
    """Leaves signals to this run: nbclient would put handlers of its own in their place."""

    def add_signal_handler(self, *_):
        raise RuntimeError("signals are caught already")  # which nbclient expects, and goes on


async def _execute(client, options: dict) -> None:
    from nbclient.exceptions import DeadKernelError

    try:
        # the kernel's greeting is no news
        await client.async_execute(stderr=subprocess.DEVNULL, **options)
    except DeadKernelError:
        if asyncio.current_task().cancelling():  # it died because this run was stopped
            raise asyncio.CancelledError from None
        raise

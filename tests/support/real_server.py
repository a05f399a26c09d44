"""``whet serve`` as a process, over a real engine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

__all__ = ["RealServer", "serving"]

_READY_S = 90.0


@dataclass(frozen=True)
class RealServer:
    """A server that is ready.

    Attributes:
        process: It.
        url: Its address.
        log: Where it writes what it says.
    """

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def worker(self) -> psutil.Process:
        """The process that computes."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "whetstone.serve.worker.main" in child.cmdline())

    def wait_until_ready(self) -> None:
        """Returns when it says so."""
        end_s = time.monotonic() + _READY_S
        while httpx.get(f"{self.url}/health/ready").status_code != 200:
            assert time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.05)


@contextmanager
def serving(*arguments: str, folder: Path, port: int = 0) -> Iterator[RealServer]:
    """Starts ``whet serve``, and kills what is left of it at the end.

    Args:
        arguments: Of the command.
        folder: Where it works.
        port: Where it listens; 0 for any that is free.
    """
    log = folder / "serve.log"
    with log.open("a") as standard_error:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("whet")), "serve", *arguments, "--port", str(port), "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=standard_error,
            text=True,
            # The package that is tested, and one thread beside all the others of a test run.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, log.read_text()
        server = RealServer(process, json.loads(said)["url"], log)
        server.wait_until_ready()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()

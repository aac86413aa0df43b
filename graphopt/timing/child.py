"""A process of our own that answers over a pipe, so that what crashes or hangs there harms nobody here."""

import multiprocessing
import subprocess
import sys
from typing import Any

# What the process prints goes here: standard output belongs to `--json -`.
STDERR = 2
# Seconds it may take to end by itself.
GRACE_S = 2.0


class ChildDied(Exception):
    """The process crashed, or gave no answer in time; the message says which."""


class Child:
    """Runs `python -m MODULE HANDLE`, where HANDLE is the file descriptor of its end of the pipe."""

    def __init__(self, module: str) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-P", "-m", module, str(handle)]
            self._process = subprocess.Popen(
                command, pass_fds=[handle], stdin=subprocess.DEVNULL, stdout=STDERR, process_group=0
            )

    def send(self, message: Any) -> None:
        """Raises ChildDied if nobody is there to hear it."""
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._died() from error

    def receive(self, timeout_s: float) -> Any:
        """The next answer. Raises ChildDied; the process is ended then."""
        try:
            if not self._pipe.poll(timeout_s):
                self._process.kill()
                raise ChildDied(f"no answer within {timeout_s:g} s")
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def stop(self) -> None:
        """End the process, by force if it does not listen."""
        self._pipe.close()
        self._wait()

    def _died(self) -> ChildDied:
        return ChildDied(f"the process died with exit code {self._wait()}")

    def _wait(self) -> int:
        try:
            return self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

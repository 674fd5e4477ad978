"""Which clients of a monitoring server share its events: a file for each, beside the shared memory."""

from __future__ import annotations

import contextlib
import glob
import os
import time

LOOK_SECONDS = 0.5


class Team:
    """The readers of one team.

    An event that one of them leaves to the others must not go to a queue that nobody of them reads.

    Parameters
    ----------
    memory : str
        Path of the shared memory.
    team : int
        Its word, not 0.
    """

    def __init__(self, memory: str, team: int) -> None:
        self._path = f"{memory}.team{team:08x}."
        self._number = -1
        self._members: set[int] = set()
        self._due = 0.0

    def join(self, number: int) -> None:
        """Say that this process is a client of the server.

        Parameters
        ----------
        number : int
            Of the client.
        """
        self.leave()
        self._number, self._due = number, 0.0
        with open(f"{self._path}{number}", "w") as file:
            file.write(str(os.getpid()))

    def members(self) -> set[int]:
        """Return the numbers of the clients that are there, this one included."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + LOOK_SECONDS
            found = glob.glob(glob.escape(self._path) + "*")
            self._members = {int(p.rpartition(".")[2]) for p in found if _alive(p)}
        return self._members

    def leave(self) -> None:
        """Say that this process takes no more."""
        if self._number >= 0:
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}{self._number}")
            self._number = -1


def _alive(path: str) -> bool:
    try:
        with open(path) as file:
            os.kill(int(file.read()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):  # it went away, or writes this moment
        return False
    return True

"""A nanny that starts its worker with a given environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from distributed import Nanny


class EnvironmentNanny(Nanny):
    """A `distributed.Nanny` whose worker process has all of `env` from its very start.

    Dask sets ``env`` when the worker already runs: too late for the memory allocator, which
    reads its settings once, before Python starts.  What has to be there before, Dask leaves in the
    environment of this process; here it is put back, for other programs that are started later.
    """

    _starting: ClassVar[int] = 0
    _before: ClassVar[dict[str, str]] = {}

    def __init__(self, *args: Any, env: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, env=env, **options)
        self.pre_spawn_env: dict[str, str] = dict(self.pre_spawn_env) | (env or {})

    async def instantiate(self) -> Any:
        """Start the worker."""
        with self._environment_put_back():
            return await super().instantiate()

    @contextmanager
    def _environment_put_back(self) -> Iterator[None]:
        """Put the environment back when the last of the nannies that are starting has started."""
        kind = EnvironmentNanny
        if kind._starting == 0:
            kind._before = dict(os.environ)
        kind._starting += 1
        try:
            yield
        finally:
            kind._starting -= 1
            if kind._starting == 0:
                for name in self.pre_spawn_env:
                    _set(name, kind._before.get(name))


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value

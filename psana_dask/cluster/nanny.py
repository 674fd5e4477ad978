"""A nanny that starts its worker with a given environment."""

from __future__ import annotations

from typing import Any

from distributed import Nanny


class EnvironmentNanny(Nanny):
    """A `distributed.Nanny` whose worker process has all of `env` from its very start.

    Dask sets ``env`` when the worker already runs: too late for the memory allocator, which
    reads its settings once, before Python starts.
    """

    def __init__(self, *args: Any, env: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, env=env, **options)
        self.pre_spawn_env: dict[str, str] = dict(self.pre_spawn_env) | (env or {})

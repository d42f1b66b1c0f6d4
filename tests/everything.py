"""All modules of the program, imported before a child of this process needs them, or can't read them any more."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import walk_packages

import fsview
import store
import tools


@cache
def import_everything() -> None:
    """Import what commands import only when they need it."""
    for package in (store, fsview, tools):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    # What these libraries do, or we with them.
    for name in ("click._textwrap", "multiprocessing.popen_fork", "lmdb._envid", "pathspec", "tomli_w._writer", "tqdm"):
        import_module(name)

"""`python -m tools` is `fsview`."""

from __future__ import annotations

from tools.cli import main

if __name__ == "__main__":
    main()

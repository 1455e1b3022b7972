"""`python -m artcache`, and the console script: nothing is imported before Ctrl-C is minded."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from artcache.cli import main as run

        run()
    except KeyboardInterrupt:  # while modules were imported; commands tell it themselves
        sys.stderr.write("error: interrupted; nothing half-done is left\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

"""``bios`` and ``python -m bios``: the command line of the client."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())

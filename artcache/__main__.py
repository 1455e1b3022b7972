"""`python -m artcache`."""

from artcache.cli import main

if __name__ == "__main__":
    main()

"""`python -m mt` is `mt`."""

from mt.cli import main

if __name__ == "__main__":
    main()

"""``python -m maskbatch`` is the `maskbatch` command."""

from maskbatch.cli import main

if __name__ == "__main__":
    main()

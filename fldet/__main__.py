"""``python -m fldet`` is the command ``fldet``."""

from fldet.cli.main import main

if __name__ == "__main__":
    main()

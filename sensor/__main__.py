"""``python -m sensor`` is ``vmsensor``."""

from sensor.cli import main

if __name__ == "__main__":
    main()

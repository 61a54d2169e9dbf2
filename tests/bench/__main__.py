"""``python -m tests.bench`` is ``make bench``."""

from tests.bench.bench import main

main()

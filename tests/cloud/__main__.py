"""`python -m tests.cloud` is what `make lab` runs."""

import signal
import sys

if __name__ == "__main__":
    # As long as nothing is made Ctrl-C has nothing to clean up, and modules that are loading nothing to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tests.cloud.run import main

    sys.exit(main())

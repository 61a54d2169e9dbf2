"""How often Python looks for objects that hold one another in a circle, which counting references does not free."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 100_000
"""A window's analysis makes and keeps tens of thousands of tuples, hardly any of them in a circle. Python's own 700
would have it look through them hundreds of times a window, a tenth of all the time. Some 10 MB may wait to be found."""


def collect_seldom() -> None:
    """For the rest of this process."""
    gc.set_threshold(_NEW_OBJECTS, 10, 10)


def keep_what_is_loaded() -> None:
    """Modules, classes and whatever else is there by now live to the end: no collection looks through them again."""
    gc.freeze()

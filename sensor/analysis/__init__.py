"""From a window's records to points."""

from __future__ import annotations

"""From addresses to names: which VM, which tenant, and what crossed which border."""

from __future__ import annotations

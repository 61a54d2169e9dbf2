"""What the captures show, a module for each part of decoding. Importing it registers every capture."""

from __future__ import annotations

from . import causes, demo, formats, hostile, life, links, names, network, tcp, tunnels

__all__ = ["causes", "demo", "formats", "hostile", "life", "links", "names", "network", "tcp", "tunnels"]

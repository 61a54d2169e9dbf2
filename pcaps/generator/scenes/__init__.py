"""What the captures show, a module for each part of decoding. Importing it registers every capture."""

from __future__ import annotations

from . import borders, causes, demo, formats, hostile, life, links, names, network, tcp, tunnels

__all__ = ["borders", "causes", "demo", "formats", "hostile", "life", "links", "names", "network", "tcp", "tunnels"]

"""Known traffic: TCP connections of which everything is known, what a mirror shows of them, and how well it is told."""

"""Who may talk to whom: a policy file, what it says of a window's flows, and what it forbids as events."""

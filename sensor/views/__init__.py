"""What the commands print that look at windows of the past: a file a command."""

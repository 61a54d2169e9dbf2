"""The commands, a file a group: each reads its options and hands them to the code that does the work."""

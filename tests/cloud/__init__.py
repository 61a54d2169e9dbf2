"""`make lab`: a small cloud on this machine, measured for a minute, and removed again."""

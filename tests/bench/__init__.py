"""`make bench`: the speed and the memory of vmsensor, beside others on the same capture."""

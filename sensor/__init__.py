"""vmsensor: a passive sensor for VM-to-VM traffic on a mirror port."""

__version__ = "0.1.0"

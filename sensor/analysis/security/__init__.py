"""Detectors of attacks and of forbidden traffic; each looks at one window after the other."""

"""Only what pyproject.toml cannot say: that cffi builds the extension. Everything else is declared there."""

from setuptools import setup

setup(cffi_modules=["native/build.py:ffibuilder"])

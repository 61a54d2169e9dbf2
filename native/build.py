"""The cffi builder: makes the extension module ``sensor._native`` from every C file beside this one.

All of them are compiled as one, so that functions are inlined across files, which saves 16 % of a packet's instructions
and needs nothing of the linker, as link-time optimisation would. Names that are ``static`` are therefore unique in this
directory.

cffi's setuptools hook runs it from the project's root, in a checkout as in an unpacked sdist. All paths are relative
to that root, because setuptools refuses absolute source paths.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

NATIVE = Path("native")

COMPILE_ARGS = [
    "-std=c11",
    "-O3",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",  # cffi's generated glue has some
    "-fvisibility=hidden",  # calls between our own functions need no indirection
    "-pthread",
    "-fwhole-program",  # and functions that one place calls are inlined there
    "-fno-tree-slp-vectorize",  # two fields that were just written and are read as one vector make the processor wait
]

# What Python looks for is in use, although nothing in the program calls it.
INITIALISER = "PyMODINIT_FUNC __attribute__((externally_visible)) PyInit__native(void);"

SOURCES = sorted(NATIVE.glob("*.c"))
HEADERS = sorted(NATIVE.glob("*.h"))

ffibuilder = FFI()
ffibuilder.cdef((NATIVE / "vms_api.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "sensor._native",
    "\n".join([f'#include "{path.name}"' for path in SOURCES] + [INITIALISER]),
    depends=[str(path) for path in SOURCES + HEADERS],  # a changed one builds it anew
    include_dirs=[str(NATIVE)],
    extra_compile_args=COMPILE_ARGS,
    extra_link_args=["-pthread"],
)

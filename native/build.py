"""The cffi builder: makes the extension module ``sensor._native`` from every C file beside this one.

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
    "-fvisibility=hidden",  # calls between our own files need no indirection
]

ffibuilder = FFI()
ffibuilder.cdef((NATIVE / "vms_api.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "sensor._native",
    '#include "vms.h"',
    sources=sorted(str(path) for path in NATIVE.glob("*.c")),
    depends=sorted(str(path) for path in NATIVE.glob("*.h")),  # a changed header builds it anew, too
    include_dirs=[str(NATIVE)],
    extra_compile_args=COMPILE_ARGS,
)

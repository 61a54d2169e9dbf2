"""What a process may do, given up for good. A capture needs a capability to begin, and none to go on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from pathlib import Path

from sensor.errors import UsageError

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4  # linux/prctl.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
DEFAULT_USER = "nobody"

_libc = ctypes.CDLL(None, use_errno=True)


def user_named(name: str) -> pwd.struct_passwd:
    """An account of this host; UsageError when there is none of that name or number."""
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    raise UsageError(f"--user {name}: no such user on this host")


def drop_all(user: str | None) -> None:
    """Become an ordinary user without any capability, now and after any exec. OSError when that cannot be.

    Root becomes ``user``, by default nobody; anybody else stays who they are, and loses what capabilities they had.
    """
    for capability in range(_last_capability() + 1):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # it takes CAP_SETPCAP; without, there is little to bound
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if os.geteuid() == 0:
        account = user_named(user or DEFAULT_USER)
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    _checked(_libc.capset(_header(), (ctypes.c_uint32 * 6)()))
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)


def _last_capability() -> int:
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return 40


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

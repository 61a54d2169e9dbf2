"""What a process may do, given up for good. A capture needs a capability to begin, and none to go on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from collections.abc import Collection
from pathlib import Path

from sensor.errors import PrivilegeError, UsageError

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETPCAP, CAP_NET_ADMIN, CAP_NET_RAW = 1, 2, 8, 12, 13  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 8, 24, 38  # linux/prctl.h
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

Account = pwd.struct_passwd

_libc = ctypes.CDLL(None, use_errno=True)


def user_named(name: str) -> Account:
    """An account of this host; UsageError when there is none of that name or number."""
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    raise UsageError(f"--user {name}: no such user on this host")


def may_read_all() -> bool:
    """Whether files may be read now that their modes forbid to read."""
    return bool(_permitted() & (1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH))


def give_up(account: Account | None = None, keep: Collection[int] = ()) -> None:
    """Become ``account``, where that is possible and asked for, with no capability but those to ``keep``.

    A root that may not become anybody, as in a container without CAP_SETUID, keeps its user and loses the rest.

    No exec brings anything back, no other process of the same user can look into this one, and it leaves no core dump
    with packets in it. PrivilegeError when that cannot be.
    """
    try:
        _give_up(account, keep)
    except OSError as error:
        raise PrivilegeError(f"cannot give up privileges: {error.strerror}; choose another --user") from None


def _give_up(account: Account | None, keep: Collection[int]) -> None:
    for capability in range(_last_capability() + 1):
        if capability not in keep:  # it takes CAP_SETPCAP; without, there is little to bound
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            _become(account)
    _set_capabilities(_permitted() & sum(1 << capability for capability in keep))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def _become(account: Account | None) -> None:
    os.setgroups([])
    if account is not None:
        _checked(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)


def _permitted() -> int:
    data = (ctypes.c_uint32 * 6)()
    _checked(_libc.capget(_header(), data))
    return int(data[1]) | int(data[4]) << 32  # struct __user_cap_data_struct: effective, permitted, inheritable; twice


def _set_capabilities(bits: int) -> None:
    low, high = bits & 0xFFFFFFFF, bits >> 32
    _checked(_libc.capset(_header(), (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)))


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

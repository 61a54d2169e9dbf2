"""Whom the supervisor becomes when it is started as root: somebody who can do its work, and nothing else.

That is the owner of the place where it writes, if that is not root, else ``--user``. What it writes to is made over to
him before: a new store, a store that root has made, output files. Where neither can do the work, because a directory on
the way is root's alone, it stays root's user, without a single capability.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sensor.config import DEFAULT_USER, Settings
from sensor.errors import UsageError
from sensor.preload import code_directories
from sensor.privileges import Account, may_read_all, user_named
from sensor.sinks.blocks import LOCK_NAME

log = logging.getLogger(__name__)


class Obstacle(Exception):
    """Why somebody cannot do the supervisor's work."""


class Needs(NamedTuple):
    """What the supervisor has to get at, once it is nobody special."""

    stores: list[Path]
    written: list[Path]
    rewritten: list[Path]
    """Replaced by a file beside them: their directory has to be writable."""
    read: list[Path]


def supervisor_account(settings: Settings) -> Account | None:
    """Whom to become, with everything made over to him; None: stay who one is. UsageError when ``--user`` cannot."""
    if os.geteuid() != 0:
        return None
    account, why = chosen(settings)
    if account is not None:
        with contextlib.suppress(OSError):  # what it did not get is said by whoever opens it
            _make_over(account, needs_of(settings))
    elif settings.user != DEFAULT_USER:
        raise UsageError(f"--user {settings.user}: {why}")
    else:
        log.info("the supervisor keeps root's user, without capabilities: %s", why)
    return account


def chosen(settings: Settings) -> tuple[Account | None, str]:
    """Who can do the work; None, and why not, when nobody but root's own user can."""
    needs, why = needs_of(settings), ""
    for account in _candidates(settings, needs):
        try:
            _look(account, needs)
            return account, ""
        except Obstacle as obstacle:
            why = str(obstacle)
        except OSError as error:
            why = f"this root may not become {account.pw_name}: {error.strerror}"
    return None, why


def can_import(account: Account | None) -> bool:
    """Whether this program's code is in reach of who the supervisor becomes; False also where that is hard to tell."""
    if account is None:
        return not may_read_all()
    places = code_directories()
    with _acting_as(account):
        return all(os.access(place, os.R_OK | os.X_OK, effective_ids=True) for place in places)


def needs_of(settings: Settings) -> Needs:
    """The files of a capture."""
    kinds = [(kind, target) for kind, target in settings.sinks if kind != "none"]
    stores = [Path(target) if target else settings.store for kind, target in kinds if kind == "store"]
    stores += [settings.store for kind, _ in kinds if kind == "influx"]
    written = [target for kind, target in kinds if kind == "json"] + [settings.flows]
    memory = [settings.memory] if settings.memory and settings.memory.parent not in stores else []
    outside = Path(settings.external)
    authority = Path(settings.influx.ca_file) if settings.influx and settings.influx.ca_file else None
    read = [settings.inventory, settings.policy, settings.bad_networks, settings.configuration, authority]
    return Needs(
        [path.absolute() for path in stores],
        [Path(path).absolute() for path in written if path not in (None, "-")],
        [path.absolute() for path in memory],
        [path.absolute() for path in (*read, outside if outside.is_file() else None) if path is not None],
    )


def _candidates(settings: Settings, needs: Needs) -> Iterator[Account]:
    place = next(iter((*needs.stores, *needs.written)), None)
    if settings.user == DEFAULT_USER and place:
        with contextlib.suppress(KeyError, OSError):
            owner = pwd.getpwuid(nearest(place).stat().st_uid)
            if owner.pw_uid != 0:
                yield owner
    yield user_named(settings.user)


def nearest(path: Path) -> Path:
    """The path, or the first above it that exists."""
    while not path.exists():
        path = path.parent
    return path


@contextlib.contextmanager
def _acting_as(account: Account) -> Iterator[None]:
    groups, group, user = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups([])
    try:
        os.setegid(account.pw_gid)
        os.seteuid(account.pw_uid)
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)


def _look(account: Account, needs: Needs) -> None:
    """Obstacle when something is out of this account's reach, also after it has been made over."""
    given = {path for path in needs.stores if _is_roots_store(path)} | {p for p in needs.written if _is_roots_file(p)}
    with _acting_as(account):
        for path in (*needs.stores, *needs.written):
            place = path.parent if path in given else _nearest_seen(path)
            if place != path:  # root makes it, or makes it over: he only has to get there
                _check(account, place, os.X_OK, "reach")
            else:
                _check(account, path, os.W_OK | (os.X_OK if path in needs.stores else 0), "write to")
        for path in needs.rewritten:
            _check(account, _nearest_seen(path.parent), os.W_OK | os.X_OK, "write to")
        for path in needs.read:
            _check(account, path, os.R_OK, "read")


def _nearest_seen(path: Path) -> Path:
    """As ``nearest``, for somebody who may not see all of it: then the part that he cannot see."""
    while not os.access(path, os.F_OK, effective_ids=True) and path != path.parent:
        try:
            path.lstat()
        except FileNotFoundError:
            path = path.parent
        except OSError:
            break
    return path


def _check(account: Account, path: Path, how: int, what: str) -> None:
    if not os.access(path, how, effective_ids=True):
        raise Obstacle(f"{account.pw_name} cannot {what} {path}")


def _is_roots_store(path: Path) -> bool:
    is_roots = not path.is_symlink() and path.is_dir() and path.stat().st_uid == 0
    return is_roots and ((path / LOCK_NAME).exists() or not any(path.iterdir()))


def _is_roots_file(path: Path) -> bool:
    return not path.is_symlink() and path.is_file() and path.stat().st_uid == 0


def _make_over(account: Account, needs: Needs) -> None:
    """What is root's, or not there yet, becomes his. Links are never followed: others may have put them there."""
    for path in needs.stores:
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        if is_new or _is_roots_store(path):
            _give_directory(path, account)
    for path in needs.written:
        if not path.exists() or path.is_file():
            _give_file(path, account)


def _give_directory(path: Path, account: Account) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(directory, account.pw_uid, account.pw_gid)
        for name in os.listdir(directory):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
                os.chown(name, account.pw_uid, account.pw_gid, dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(directory)


def _give_file(path: Path, account: Account) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
            os.fchown(file, account.pw_uid, account.pw_gid)
    finally:
        os.close(file)

"""A container's file system: the host's, with the container's mounts among it. Nothing is written to the host.

It is part of the supervisor, so it uses the standard library only, without ``pathlib``, which would take a third of the
start.
"""

# ruff: noqa: PTH103, PTH112, PTH110, PTH114, PTH115, PTH118, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import ctypes
import errno
import operator
import os
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x04000000, 0x10000000, 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 0x1, 0x20, 0x1000, 0x4000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_UNBINDABLE, MS_PRIVATE, MS_RELATIME = 0x2, 0x4, 0x8, 0x20000, 0x40000, 0x200000
MS_NOATIME, MS_NODIRATIME = 0x400, 0x800
MNT_DETACH = 2
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, -1)

# statvfs and mount name the same flags; only "relatime" has two values.
_KEPT_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME
_ST_RELATIME = 0x1000

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str = "none", flags: int = 0, data: str = "") -> None:
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(libc.mount(*arguments), f"mount {target}")


def enter_namespaces(hostname: str) -> None:
    """Enter new namespaces for users, mounts, the host name and, in child processes, PIDs.

    :param hostname: the host name in them.
    """
    uid, gid = os.geteuid(), os.getegid()
    _check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID), "unshare")
    host = os.fsencode(hostname)
    _check(libc.sethostname(host, ctypes.c_size_t(len(host))), "sethostname")
    # The job keeps the user's id, so that its files belong to the user, inside and outside.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)


def _bind(source: str, target: str, memory: int | None = None) -> None:
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if not os.path.lexists(target):
        if os.path.isdir(source):
            os.makedirs(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    if memory is None:
        _mount(source, target, flags=MS_BIND | MS_REC)
    else:
        _mount("tmpfs", target, kind="tmpfs", data=f"mode=1777,size={memory}")


def _mirror(directory: str, root: str) -> None:
    """Cover a directory of the host by a writable one with the same entries, so that entries can be added to it."""
    target = root + directory.rstrip("/")
    _mount("tmpfs", target, kind="tmpfs", data="mode=755")
    if directory == "/":
        # Otherwise the new root would contain itself, below the instance's directory.
        _mount("none", target, flags=MS_UNBINDABLE)
    for name in os.listdir(directory):
        source = os.path.join(directory, name)
        try:
            _bind(source, os.path.join(target, name))
        except OSError as error:
            # Entries that can't be opened, such as sockets of dead mounts, are left out.
            if error.errno not in {errno.EACCES, errno.EINVAL, errno.ENOENT, errno.ENXIO, errno.EPERM}:
                raise


def _existing_parent(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _make_room(paths: list[str], root: str) -> None:
    """Make mount points below ``root`` creatable in memory instead of on the host."""
    # A mount point inside another mount is created in that volume, as container runtimes do.
    outer = [path for path in paths if not any(path.startswith(other + "/") for other in paths)]
    parents = {_existing_parent(path) for path in outer if not os.path.lexists(path)} - {"/"}
    # Outer directories first; later they would cover the inner ones.
    for directory in ["/", *sorted(parents)]:
        _mirror(directory, root)


def _make_read_only(target: str) -> None:
    flags = os.statvfs(target).f_flag
    # A user namespace may not drop flags that the host has set, so they are repeated.
    host_flags = flags & _KEPT_FLAGS | (MS_RELATIME if flags & _ST_RELATIME else 0)
    _mount("none", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | host_flags)


def build(order: dict[str, Any]) -> None:
    """Build a tree of the host's files and the container's mounts, and make it the root directory."""
    root = order["root"]
    # Resolved on the host: a link to an absolute path would lead out of the new root. Outer mounts before inner ones.
    binds = sorted(
        ((os.path.realpath(path), source, locked, memory) for source, path, locked, memory in order["binds"]),
        key=operator.itemgetter(0),
    )
    _make_room([path for path, _, _, _ in binds], root)
    for path, source, _, memory in binds:
        if not os.path.exists(source):
            raise OSError(errno.ENOENT, f"volume {path}: {source} does not exist")
        _bind(os.path.realpath(source), root + path, memory)
    for path in order["keep"]:
        # A volume at, say, /tmp may hide files that the container needs.
        if not os.path.exists(root + path):
            _bind(path, root + path)
    for path, _, locked, _ in binds:
        if locked:
            _make_read_only(root + path)
    os.chdir(root)
    _check(libc.syscall(SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    _check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def mount_proc() -> None:
    """Mount the processes of our PID namespace; called by its first process."""
    try:
        _mount("proc", "/proc", kind="proc", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        # Inside a container that masks parts of /proc the kernel refuses; the host's /proc works, with other PIDs.
        return

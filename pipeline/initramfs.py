"""A deterministic initramfs: a newc cpio archive of busybox and an init script (Linux, early-userspace/buffer-format)."""

from __future__ import annotations

import stat
from dataclasses import dataclass

DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sys", "tmp")
CONSOLE = (5, 1)  # the device numbers of /dev/console, which init's first output needs


@dataclass(frozen=True)
class Node:
    """One member of the archive."""

    name: str
    mode: int  # type and permissions, as stat(2) has them
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def newc(node: Node, inode: int) -> bytes:
    """A member as bytes: owner root, time 0."""
    name = node.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (inode, node.mode, 0, 0, links, 0, len(node.data), 0, 0, *node.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return pad4(head) + pad4(node.data)


def pad4(data: bytes) -> bytes:
    """Zero padded to a multiple of four bytes."""
    return data.ljust(-(-len(data) // 4) * 4, b"\0")


def archive(nodes: list[Node]) -> bytes:
    """The whole archive, members in the order given, ended by the trailer and padded to 512 bytes."""
    body = b"".join(newc(node, inode) for inode, node in enumerate(nodes, start=1))
    body += newc(Node("TRAILER!!!", 0), 0)
    return body.ljust(-(-len(body) // 512) * 512, b"\0")


def busybox_initramfs(busybox: bytes, init: bytes) -> bytes:
    """An archive that runs `init` with busybox as its shell."""
    nodes = [Node(name, stat.S_IFDIR | 0o755) for name in DIRECTORIES]
    nodes.append(Node("dev/console", stat.S_IFCHR | 0o600, device=CONSOLE))
    nodes.append(Node("bin/busybox", stat.S_IFREG | 0o755, busybox))
    nodes.append(Node("bin/sh", stat.S_IFLNK | 0o777, b"busybox"))
    nodes.append(Node("init", stat.S_IFREG | 0o755, init))
    return archive(nodes)

"""Run as a program: a command in a network of its own, where every look-up of a name is answered with "no such host" and noted.

``python quiet_network.py NOTES COMMAND …``: the names that were looked up, one per line, go to the file NOTES. Exit code 77 where the
system does not allow namespaces.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

NOT_ALLOWED = 77
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def enter() -> None:
    """A network with nothing but a loopback device, and our own list of name servers."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS):
        sys.exit(NOT_ALLOWED)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            request = struct.pack("16sh", b"lo", 0) + bytes(14)
            flags = struct.unpack("16sh", fcntl.ioctl(device, SIOCGIFFLAGS, request)[:18])[1]
            fcntl.ioctl(device, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP) + bytes(14))
    except OSError:
        sys.exit(NOT_ALLOWED)
    servers = Path(tempfile.mkdtemp()) / "resolv.conf"
    servers.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    if libc.mount(os.fsencode(servers), b"/etc/resolv.conf", None, MS_BIND, None):
        sys.exit(NOT_ALLOWED)


def serve(notes: Path) -> None:
    """Answer name servers' questions with NXDOMAIN (RFC 1035, 4.1)."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def answer() -> None:
        while True:
            query, sender = server.recvfrom(4096)
            labels, position = [], 12
            while position < len(query) and query[position]:
                labels.append(query[position + 1 : position + 1 + query[position]].decode("latin-1"))
                position += 1 + query[position]
            with notes.open("a") as file:
                file.write(".".join(labels) + "\n")
            server.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], sender)

    threading.Thread(target=answer, daemon=True).start()


if __name__ == "__main__":
    notes = Path(sys.argv[1])
    enter()
    notes.write_text("")
    serve(notes)
    sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)

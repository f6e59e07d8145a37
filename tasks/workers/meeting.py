"""Where the processes of a group find each other, before they can talk over it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil

_hosted: dict[int, Any] = {}  # port -> its store, which holds the port from its choice on: nobody else can take it


@dataclass(frozen=True, slots=True)
class Meeting:
    """Processes of one node meet in `file`, which stays there as long as they do; those of several meet at the `host`
    and `port` that rank 0 has opened.

    torch's TCP store listens on all interfaces, whatever address it is given; a file listens on none.
    """

    size: int
    file: str = ""
    host: str = ""
    port: int = 0

    def store(self, rank: int, timeout: timedelta) -> Any:
        """torch's store for a process group, in which this process is `rank`."""
        from torch import distributed

        if self.file:
            return distributed.FileStore(self.file, self.size)
        if interface := interface_of(_own_address()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        if rank == 0:
            return _hosted[self.port]
        return distributed.TCPStore(self.host, self.port, self.size, False, timeout)


def host_meeting(size: int, timeout: timedelta) -> Meeting:
    """Opens a meeting of `size` processes on several nodes in this one, which is to be rank 0 (a Ray actor)."""
    from torch import distributed

    store = distributed.TCPStore("0.0.0.0", 0, size, True, timeout, wait_for_workers=False)
    _hosted[store.port] = store
    return Meeting(size, host=_own_address(), port=store.port)


def _own_address() -> str:
    """By which the other nodes know this one."""
    import ray

    return str(ray.util.get_node_ip_address())


def interface_of(address: str) -> str:
    """The network interface that has it; "" where none has. gloo by itself takes the address of the machine's name,
    which on many systems is one of loopback (/etc/hosts): no other node could connect."""
    return next((name for name, has in psutil.net_if_addrs().items() if address in (a.address for a in has)), "")

"""Where the processes of a group find each other, before they can talk over it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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
        if rank == 0:
            return _hosted[self.port]
        return distributed.TCPStore(self.host, self.port, self.size, False, timeout)


def host_meeting(size: int, timeout: timedelta) -> Meeting:
    """Opens a meeting of `size` processes on several nodes in this one, which is to be rank 0 (a Ray actor)."""
    import ray
    from torch import distributed

    store = distributed.TCPStore("0.0.0.0", 0, size, True, timeout, wait_for_workers=False)
    _hosted[store.port] = store
    return Meeting(size, host=ray.util.get_node_ip_address(), port=store.port)

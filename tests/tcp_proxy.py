"""A TCP proxy between a client and a server that can be slow, hang, or cut connections.

What does not belong here: anything about the protocol it carries.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.waiting import wait_until

_PIECE = 1 << 16
_LINGER_ZERO = struct.pack("ii", 1, 0)
"""Closing such a socket sends a reset instead of an orderly end."""


class TcpProxy:
    """Carries bytes to ``target`` on this machine. Its faults may be changed while connections are open.

    ``bytes_per_second`` slows each connection down, in each direction; ``hanging`` swallows everything and answers
    nothing; ``reset_after`` resets a connection once it carried that many bytes in either direction, ``resets_left``
    times. ``sent`` and ``received`` count bytes from and to clients, ``resets`` the connections that were cut.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.bytes_per_second: int | None = None
        self.hanging = False
        self.reset_after: int | None = None
        self.resets_left = 0
        self.sent = self.received = self.resets = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def wait_until_sent(self, count: int) -> None:
        """Return when clients have sent ``count`` bytes."""
        wait_until(f"clients have sent {count} bytes", lambda: self.sent >= count, pause=0.005)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # the server is gone: so is the connection
                    self._reset(client)
                    continue
                for source, target, sending in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._carry, args=(source, target, client, sending), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, client: socket.socket, sending: bool) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(_PIECE):
                carried += len(data)
                with self._lock:
                    self.sent += len(data) * sending
                    self.received += len(data) * (not sending)
                    cut = self.reset_after is not None and self.resets_left > 0 and carried >= self.reset_after
                    self.resets_left -= cut
                    self.resets += cut
                if cut:
                    self._reset(client)
                    break
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
                if not self.hanging:
                    target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the other direction
            one.close()

    @staticmethod
    def _reset(client: socket.socket) -> None:
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            client.close()


@contextmanager
def tcp_proxy(endpoint: str) -> Iterator[TcpProxy]:
    """A proxy to the server at ``endpoint`` (``http://127.0.0.1:PORT``)."""
    proxy = TcpProxy(int(endpoint.rpartition(":")[2]))
    try:
        yield proxy
    finally:
        proxy.close()

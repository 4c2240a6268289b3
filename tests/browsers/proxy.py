"""A TCP proxy that resets connections in the middle of a request."""

import contextlib
import socket
import struct
import threading
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing the socket resets the connection


class Proxy:
    """A proxy to `url`. It resets connections that send more than `max_bytes`.

    After `times` resets, it forwards everything.
    """

    @classmethod
    @contextlib.contextmanager
    def in_front_of(cls, url, max_bytes, times=1):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proxy = cls(listener, urlsplit(url), max_bytes, times)
            threading.Thread(target=proxy._accept, daemon=True).start()
            yield proxy
            listener.shutdown(socket.SHUT_RDWR)

    def __init__(self, listener, target, max_bytes, times):
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.resets_left = times
        self._listener = listener
        self._target = (target.hostname, target.port)
        self._max_bytes = max_bytes

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for direction in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._forward, args=direction, daemon=True).start()

    def _forward(self, source, target, upwards):
        forwarded = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                forwarded += len(data)
                if upwards and forwarded > self._max_bytes and self.resets_left:
                    self.resets_left -= 1
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    break
                target.sendall(data)
        for connection in (source, target):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

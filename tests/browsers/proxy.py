"""A network that fails: connections through it are cut off in the middle, a given number of times."""

import contextlib
import socket
import struct
import threading
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)  # closing then resets the connection


class Proxy:
    """Passes everything on to `url`; whoever sends more than `most` bytes is cut off, `times` times."""

    @classmethod
    @contextlib.contextmanager
    def before(cls, url, most, times=1):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proxy = cls(listener, urlsplit(url), most, times)
            threading.Thread(target=proxy._accept, daemon=True).start()
            yield proxy
            listener.shutdown(socket.SHUT_RDWR)

    def __init__(self, listener, target, most, times):
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.left = times
        self._listener = listener
        self._target = (target.hostname, target.port)
        self._most = most

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for way in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=way, daemon=True).start()

    def _pass_on(self, source, target, upwards):
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if upwards and passed > self._most and self.left:
                    self.left -= 1
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

"""An HTTP proxy for tests, which can forward each request or make it fail in several ways."""

import contextlib
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET

import httpx2

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER value with which close() resets the connection
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "content-encoding",
    "date",
    "server",
}


@contextlib.contextmanager
def proxy_before(url, handle_call):
    """Run a proxy in front of `url` and yield the proxy's URL. `handle_call` must end each Call."""
    with httpx2.Client(base_url=url, timeout=120, trust_env=False) as target:

        class Handler(_Handler):
            def handle_call(self):
                handle_call(Call(self, target))

        server = _Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class Call:
    """One request to the proxy. End it with `forward`, `respond_error`, `reset` or `hang`."""

    def __init__(self, handler, target):
        self._handler = handler
        self._target = target
        self.method, self.path, self.headers = handler.command, handler.path, handler.headers
        self._body = None

    @property
    def body(self):
        if self._body is None:
            self._body = self._handler.rfile.read(int(self.headers.get("content-length") or 0))
        return self._body

    def fetch_from_target(self):
        headers = [
            (name, value) for name, value in self.headers.items() if name.lower() != "connection"
        ]
        return self._target.request(self.method, self.path, headers=headers, content=self.body)

    def forward(self):
        self.respond_with(self.fetch_from_target())

    def respond_with(self, response, share=1.0):
        """Send the response.

        If `share` is below 1, send only this share of the body, and then reset the connection.
        """
        content = response.content
        self._begin(response.status_code, response.headers.multi_items(), len(content))
        if self.method != "HEAD":
            self._handler.wfile.write(content[: int(len(content) * share)])
        if share < 1:
            self.reset()

    def respond_error(self, status, content=b"", **headers):
        _ = self.body  # read first, as the client sends the whole body before it reads
        self._begin(
            status,
            [(name.replace("_", "-"), value) for name, value in headers.items()],
            len(content),
        )
        if self.method != "HEAD":
            self._handler.wfile.write(content)

    def reset(self, after=0):
        """Reset the connection after reading `after` bytes of the request body."""
        self._handler.rfile.read(after)
        self._handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        self._handler.close_connection = True

    def hang(self):
        """Send no response, and wait until the client closes the connection."""
        _ = self.body
        with contextlib.suppress(OSError):
            self._handler.connection.recv(1)
        self._handler.close_connection = True

    def _begin(self, status, headers, length):
        self._handler.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(length))
        self._handler.end_headers()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self):
        with contextlib.suppress(ConnectionError):  # raised if the client has closed the connection
            self.handle_call()

    # http.server requires these names.
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _any  # noqa: N815 - names of http.server

    def log_message(self, *_):
        pass

    def finish(self):
        with contextlib.suppress(ConnectionError, ValueError):
            super().finish()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 500

    def shutdown_request(self, request):
        request.close()  # without shutdown(), because it would prevent a reset

    def handle_error(self, *_):
        pass

"""A proxy that does to HTTP calls what networks and services do: passes on, refuses, resets, stops half-way, hangs."""

import contextlib
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET

import httpx2

_RESET = struct.pack("ii", 1, 0)  # closing then resets the connection
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
def before(url, treat):
    """The address of a proxy before `url`; `treat` gets each Call and ends it with one of its verbs."""
    with httpx2.Client(base_url=url, timeout=120, trust_env=False) as target:

        class Handler(_Handler):
            def treat(self):
                treat(Call(self, target))

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
    """One call through the proxy."""

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

    def answer_of_target(self):
        headers = [
            (name, value) for name, value in self.headers.items() if name.lower() != "connection"
        ]
        return self._target.request(self.method, self.path, headers=headers, content=self.body)

    def pass_on(self):
        self.answer_with(self.answer_of_target())

    def answer_with(self, answer, share=1.0):
        """The answer, or a share of its bytes before the connection breaks."""
        content = answer.content
        self._begin(answer.status_code, answer.headers.multi_items(), len(content))
        if self.method != "HEAD":
            self._handler.wfile.write(content[: int(len(content) * share)])
        if share < 1:
            self.reset()

    def refuse(self, status, content=b"", **headers):
        _ = self.body  # it is sent before the answer is looked at
        self._begin(
            status,
            [(name.replace("_", "-"), value) for name, value in headers.items()],
            len(content),
        )
        if self.method != "HEAD":
            self._handler.wfile.write(content)

    def reset(self, after=0):
        """Breaks the connection, once so many bytes of the body have come."""
        self._handler.rfile.read(after)
        self._handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        self._handler.close_connection = True

    def hang(self):
        """Says nothing until the other side gives up."""
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
        with contextlib.suppress(ConnectionError):  # who called has gone
            self.treat()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _any  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_):
        pass

    def finish(self):
        with contextlib.suppress(ConnectionError, ValueError):
            super().finish()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 500

    def shutdown_request(self, request):
        request.close()  # not shut down first: a connection that is to be reset would end in order

    def handle_error(self, *_):
        pass

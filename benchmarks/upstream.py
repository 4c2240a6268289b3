"""A fake upstream that returns the same transcript for every recording, after a fixed time.

    python -m benchmarks.upstream SECONDS

It listens on a free port, prints its URL, and runs until its standard input is closed.
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RESPONSE = b'{"text": "Ever tried.", "usage": {"type": "duration", "seconds": 1}}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seconds = 0.0

    def do_POST(self) -> None:
        remaining, buffer = int(self.headers["content-length"]), memoryview(bytearray(1 << 18))
        while remaining:
            remaining -= self.rfile.readinto(buffer[:remaining])
        time.sleep(self.seconds)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(_RESPONSE)))
        self.end_headers()
        self.wfile.write(_RESPONSE)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    _Handler.seconds = float(sys.argv[1])
    server = _Server(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()

"""A speech service that hears the same in everything, after so many seconds: what is measured is what stands before it.

python -m benchmarks.upstream SECONDS    on a free port, whose address it prints, until its standard input ends
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ANSWER = b'{"text": "Ever tried.", "usage": {"type": "duration", "seconds": 1}}'


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seconds = 0.0

    def do_POST(self) -> None:
        left, buffer = int(self.headers["content-length"]), memoryview(bytearray(1 << 18))
        while left:
            left -= self.rfile.readinto(buffer[:left])
        time.sleep(self.seconds)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    _Answering.seconds = float(sys.argv[1])
    server = _Server(("127.0.0.1", 0), _Answering)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()

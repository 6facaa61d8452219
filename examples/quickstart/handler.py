"""Runs tasks. Each is a POST with the payload as its body. 200 completes the task; most others retry it."""

import hashlib
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def send_email(payload):
    # About a millisecond of work, in place of sending an email.
    hashlib.pbkdf2_hmac("sha256", payload["to"].encode(), b"rowlock", 2000)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open: a new one for each task would take longer than the task
    disable_nagle_algorithm = True  # sends answers at once

    def do_POST(self):
        payload = json.loads(self.rfile.read(int(self.headers["content-length"])))
        send_email(payload)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass  # payloads and addresses stay out of the logs


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    # As PID 1 of a container, Python ignores SIGTERM without this, and the pod would end only after its grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()

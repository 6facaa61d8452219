"""A handler whose process ends when it gets a poison task.

Usage: poison.py PORT
A payload {"poison": true} ends the process at once, as a crash does, or the kernel when memory runs out.
Others take {"ms": N} milliseconds.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        task = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if task.get("poison"):
            os._exit(137)
        time.sleep(task.get("ms", 0) / 1000)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

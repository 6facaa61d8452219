"""A handler that obeys the payload: {"do": "fail"} answers 500, {"do": "wait"} answers once the file `go` exists.

It appends a line with $VERSION to the file `handlers` when it starts and when it ends.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def note(event):
    with open("handlers", "a") as file:
        file.write(f"{event} {os.environ.get('VERSION', '1')}\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        what = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("do")
        if what == "wait":
            open(f"started-{self.headers['ce-id']}", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.02)
        self.send_response(500 if what == "fail" else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False
    request_queue_size = 128


def end(*_):
    note("end")
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
    note("start")
    server.serve_forever()

"""A handler that logs its runs, and misbehaves at random unless it is started with --calm.

Each event is one JSON line, appended by one write. The history checker (tests/src/history.rs) reads them.
"""

import argparse
import itertools
import json
import os
import random
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUNS = itertools.count()
SELF = f"{os.getpid()}-{time.time_ns()}"
# Longer than the timeout of the queue in the chaos test.
SILENCE = 5


def note(**event):
    os.write(LOG, (json.dumps(event) + "\n").encode())


def pick():
    """Chooses (kind of answer, seconds of work)."""
    if ARGS.calm:
        return "ok", random.uniform(0.02, 0.3)
    dice, work = random.random(), random.uniform(0.001, 0.05)
    for share, how, work in [
        (0.08, "error", work),
        (0.02, "ok", random.uniform(0.5, 2)),
        (0.006, "silent", SILENCE),
        (0.01, "hang up", work),
        (0.01, "garbage", work),
        (0.01, "half", work),
        (0.006, "flood", work),
        (0.01, "later", work),
        (0.004, "never", work),
    ]:
        if dice < share:
            return how, work
        dice -= share
    return "ok", work


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.run = f"{SELF}-{next(RUNS)}"
        note(
            event="started", run=self.run, handler=os.getpid(), id=int(self.headers["ce-id"]),
            attempt=int(self.headers["rowlock-attempt"]), token=int(self.headers["rowlock-fencing-token"]),
            at=time.time_ns(),
        )
        how, work = pick()
        time.sleep(work)
        # The connection is readable but has no data: the client closed it.
        if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            self.cut_off()
        try:
            self.answer(how)
        except OSError:
            self.cut_off()
            self.close_connection = True

    def cut_off(self):
        note(event="cut_off", run=self.run, at=time.time_ns())

    def answer(self, how):
        status = {"ok": 200, "error": 500, "later": 429, "never": 410, "flood": 500}.get(how, 0)
        note(event="finished", run=self.run, status=status, at=time.time_ns())
        if status:
            body = b"x" * (10 << 20) if how == "flood" else b"{}"
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if how == "later":
                self.send_header("retry-after", "1")
            self.end_headers()
            self.wfile.write(body)
            return
        self.close_connection = True
        if how == "garbage":
            self.wfile.write(b"\x00\xffthis is no HTTP\r\n\r\n")
        elif how == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


def end_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", action="store_true")
    ARGS = parser.parse_args()
    random.seed(ARGS.seed)
    LOG = os.open(ARGS.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    Server(("127.0.0.1", ARGS.port), Handler).serve_forever()

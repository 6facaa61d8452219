"""forward.py PID TARGET FILE: forwards connections from a free port on this machine's loopback to TARGET, an
address in the network namespace of process PID. It writes the port to FILE.

A socket stays in the namespace in which it was created, so this listens here first, and then enters the other one."""

import asyncio
import os
import socket
import sys


async def pump(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def serve(listener, host, port):
    async def accept(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        writer.close()
        far_writer.close()

    server = await asyncio.start_server(accept, sock=listener)
    await server.serve_forever()


if sys.argv[1] == "--inside":
    listener = socket.socket(fileno=int(sys.argv[2]))
    host, port = sys.argv[3].split(":")
    asyncio.run(serve(listener, host, int(port)))
else:
    pid, target, path = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", 0))
    os.set_inheritable(listener.fileno(), True)
    with open(path + ".new", "w") as file:
        file.write(str(listener.getsockname()[1]))
    os.rename(path + ".new", path)
    inside = [sys.executable, __file__, "--inside", str(listener.fileno()), target]
    os.execvp("nsenter", ["nsenter", "-t", pid, "--net", *inside])

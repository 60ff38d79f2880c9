"""The least that a server can be: `python -m bench.bare BYTES` answers everything with so many.

It is served as ours is, by the same uvicorn with the same settings, so that what differs is us.
"""

import socket
import sys

import uvicorn
from starlette.types import Receive, Scope, Send

from qmtl.entry.server import READY, config_of, url_of


class Bare:
    def __init__(self, size: int) -> None:
        self._headers = [
            (b"content-length", str(size).encode()),
            (b"content-type", b"application/json"),
        ]
        self._body = b" " * size

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = config_of(Bare(int(sys.argv[1])))
    config.lifespan = "off"
    sys.stdout.write(f"{READY}{url_of(listener)}\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

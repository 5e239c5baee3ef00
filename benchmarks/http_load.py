"""Prepared requests -> a server, over kept-alive connections -> how many were answered, how fast, at what CPU time.

    bytes made beforehand -> n sockets, one request in flight on each -> status and time of each answer

It is lean by intent: a client library spends more on a request than the server that is to be measured. So it makes
no request while it measures, reads of an answer only its status line and length, and waits in one epoll. Linux only.

Invariant: every request that was begun is answered with 200 or 503 before `offer` returns, else it raises LoadFailed.
A server that says that it cannot take one more is as it should be; what it refused is counted apart.
"""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from worker.errors import LeadSyncError

PATIENCE_SECONDS: Final = 20.0
_OK: Final = (b"HTTP/1.1 200", b"HTTP/1.0 200")
_REFUSED: Final = b"HTTP/1.1 503"
_LENGTH: Final = b"content-length:"
_HEAD_END: Final = b"\r\n\r\n"
_RECEIVE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Answered:
    """`latencies` in seconds, one a 200; how many were 503; `cpu` seconds of this process while it offered the load."""

    latencies: tuple[float, ...]
    refused: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        """200s a second."""
        return len(self.latencies) / self.seconds


class LoadFailed(LeadSyncError):
    """A request was not answered as it should be."""

    reason = "benchmark_load_failed"


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One request, whole."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def offer(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Answered:
    """Keep one request in flight on each of `connections` for so long; the requests in turn, from the first on."""
    with select.epoll() as epoll:
        clients = [_Client(port) for _ in range(connections)]
        try:
            return _offer(epoll, {client.fileno: client for client in clients}, cycle(requests), seconds)
        finally:
            for client in clients:
                client.close()


def _offer(
    epoll: select.epoll, clients: dict[int, "_Client"], requests: Iterator[bytes], seconds: float
) -> Answered:
    latencies: list[float] = []
    refused = 0
    cpu, began = time.process_time(), time.monotonic()
    end = began + seconds
    for client in clients.values():
        epoll.register(client.fileno, select.EPOLLIN)
        client.begin(next(requests))
    busy = len(clients)
    while busy:
        ready = epoll.poll(PATIENCE_SECONDS)
        if not ready:
            raise LoadFailed(f"{busy} requests were not answered within {PATIENCE_SECONDS:.0f} s")
        for fileno, _ in ready:
            client = clients[fileno]
            if not client.is_answered():
                continue
            now = time.monotonic()
            if client.was_refused:
                refused += 1
            else:
                latencies.append(now - client.began)
            if now < end:
                client.begin(next(requests))
            else:
                busy -= 1
    if not latencies:
        raise LoadFailed(f"all {refused} requests were answered with 503")
    return Answered(tuple(latencies), refused, time.monotonic() - began, time.process_time() - cpu)


class _Client:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fileno = self._socket.fileno()
        self.began = 0.0
        self.was_refused = False
        self._heard = b""

    def begin(self, request: bytes) -> None:
        self._heard = b""
        self.began = time.monotonic()
        self._socket.sendall(request)

    def is_answered(self) -> bool:
        """Take what has come; whether the answer is whole."""
        some = self._socket.recv(_RECEIVE)
        if not some:
            raise LoadFailed("the server closed a connection instead of answering")
        self._heard += some
        head, found, body = self._heard.partition(_HEAD_END)
        if not found:
            return False
        self.was_refused = head.startswith(_REFUSED)
        if not self.was_refused and not head.startswith(_OK):
            raise LoadFailed(
                f"a request was answered {head[:60].splitlines()[0].decode('ascii', 'replace')!r}"
            )
        return len(body) >= _length(head)

    def close(self) -> None:
        self._socket.close()


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(_LENGTH)
    return int(lowered[start + len(_LENGTH) :].split(b"\r\n", 1)[0]) if start >= 0 else 0

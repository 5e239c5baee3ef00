"""TCP proxies between leadsync and its neighbours, which cut, refuse, delay, freeze and lose what passes.

    client <-> 127.0.0.1:port <-> neighbour (TCP or Unix socket)

All run on one event loop in a thread of their own; orders may come from any thread. A lost reply is one that the
neighbour sent and the client never gets: what was asked for has been done.
Invariant: a proxy without an order passes every byte on unchanged and in order.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a neighbour really is: a Unix socket, or a host and port."""

    host: str = ""
    port: int = 0
    path: str = ""


@dataclass(slots=True)
class Proxy:
    """One of them. Attributes are read and written on its loop only."""

    upstream: Upstream
    loop: asyncio.AbstractEventLoop
    port: int = 0
    lost: int = 0
    """Replies that were lost so far."""
    _delay: float = 0.0
    _losing: int = 0
    _refusing: bool = False
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """End all connections now, as a reset."""
        self._do(self._cut)

    def refuse(self, refusing: bool) -> None:
        """End all connections and every new one; or take them again."""

        def do() -> None:
            self._refusing = refusing
            if refusing:
                self._cut()

        self._do(do)

    def delay(self, seconds: float) -> None:
        """Each chunk of a reply takes so much longer."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def freeze(self, frozen: bool) -> None:
        """Nothing passes, and nobody is told."""
        self._do(self._flows.clear if frozen else self._flows.set)

    def lose(self, replies: int) -> None:
        """The next so many replies vanish, and their connections end."""
        self._do(lambda: setattr(self, "_losing", replies))

    def _do(self, order: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(order)

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def start(self) -> asyncio.Server:
        self._flows.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = [writer]
        self._writers.add(writer)
        try:
            await self._flows.wait()
            if self._refusing:
                return
            up = self.upstream
            there = (
                asyncio.open_unix_connection(up.path)
                if up.path
                else asyncio.open_connection(up.host, up.port)
            )
            back, forth = await there
            ours.append(forth)
            self._writers.add(forth)
            asks = asyncio.create_task(self._pump(reader, forth))
            replies = asyncio.create_task(self._pump_replies(back, writer))
            # Half-closed connections are none that anybody here uses: one end gone is the end.
            _, left = await asyncio.wait({asks, replies}, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(asks, replies, return_exceptions=True)
        except OSError:
            writer.transport.abort()
        finally:
            for each in ours:
                self._writers.discard(each)
                if self._refusing:
                    each.transport.abort()
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            await self._flows.wait()
            writer.write(chunk)
            await writer.drain()

    async def _pump_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            if self._losing:
                self._losing -= 1
                self.lost += 1
                writer.transport.abort()
                return
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flows.wait()
            writer.write(chunk)
            await writer.drain()


@contextmanager
def proxying(upstreams: dict[str, Upstream]) -> Iterator[dict[str, Proxy]]:
    """A proxy before each of `upstreams`, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxies", daemon=True)
    thread.start()
    proxies: dict[str, Proxy] = {}

    async def open_all() -> list[asyncio.Server]:
        proxies.update({name: Proxy(upstream, loop) for name, upstream in upstreams.items()})
        return [await proxy.start() for proxy in proxies.values()]

    async def close_all(servers: list[asyncio.Server]) -> None:
        for server in servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    servers = asyncio.run_coroutine_threadsafe(open_all(), loop).result(10)
    try:
        yield proxies
    finally:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(close_all(servers), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        if not thread.is_alive():
            loop.close()

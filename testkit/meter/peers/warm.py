"""Warm SSH connections: how long one `/bin/true` takes on each of the first K of them, side by side. With no connections,
how long a new one takes with its `/bin/true` and its end.

Arguments: port, user, key, connections. A line with K on stdin is answered by a line with milliseconds.
"""
import asyncio
import sys
import time

import asyncssh


async def main():
    port, user, key, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

    def connect():
        return asyncssh.connect("127.0.0.1", port, username=user, client_keys=[key], known_hosts=None, config=None)

    async def cold():
        async with connect() as connection:
            return await connection.run("/bin/true")

    connections = [await connect() for _ in range(count)]
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        since = time.perf_counter()
        runs = [one.run("/bin/true") for one in connections[: int(line)]] if connections else [cold()]
        ended = await asyncio.gather(*runs)
        took = (time.perf_counter() - since) * 1e3
        failed = sum(one.exit_status != 0 for one in ended)
        print(f"{failed} failed" if failed else f"{took:.3f}", flush=True)


asyncio.run(main())

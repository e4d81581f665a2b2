"""Asks /health a hundred times a second until its input closes; prints the p99 in milliseconds.

A process of its own, so that it measures the daemon and not a busy client beside it.
"""

from __future__ import annotations

import http.client
import sys
import threading
import time


def main() -> None:
    host = sys.argv[1].removeprefix("http://")
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    connection, times = http.client.HTTPConnection(host), []
    while not done.wait(0.01):
        began = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        times.append(time.perf_counter() - began)
    print(f"{sorted(times)[int(len(times) * 0.99)] * 1e3:.1f}")


if __name__ == "__main__":
    main()

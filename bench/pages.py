"""Measures HTTP beside a job: what pages cost it, how soon they are answered, how many can read a stream."""

import http.client
import json
import re
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path

PAGES = 10
READERS = 1000
# What a page asks once a second.
PATHS = ["/api/v1/nodes", "/api/v1/ring", "/api/v1/jobs", "/api/v1/streams/events/status", "/data", "/api/v1/log"]


def connect(address: str) -> http.client.HTTPConnection:
    host, port = address.split(":")
    return http.client.HTTPConnection(host, int(port), timeout=20)


def get(connection: http.client.HTTPConnection, path: str, etag: str = "") -> str:
    connection.request("GET", path, headers={"If-None-Match": etag})
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("ETag") or ""


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


class Open:
    """Threads that run until the end of a with block."""

    def __init__(self, count: int, work):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=work, args=(number, self.stop)) for number in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


class Pages:
    def __init__(self, bench):
        self.bench = bench

    def run(self):
        data = self.bench.dataset("300")
        out = self.bench.work / "out-pages"
        with self.bench.cluster(3) as cluster:
            self.addresses = [member["http_addr"] for member in cluster.json("nodes")["members"]]
            cluster.json("events", "start")
            publisher = subprocess.Popen(
                cluster.command("events", "publish", "--rate", "200", "--for", "1h"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.wait_for_windows()
                def job() -> float:
                    return cluster.job(data.folder, out).seconds

                job()
                self.cost(job)
                self.latencies(job)
                self.readers(cluster, job)
            finally:
                publisher.terminate()
                publisher.wait()

    def wait_for_windows(self):
        connection = connect(self.addresses[0])
        while True:
            connection.request("GET", "/data")
            if json.loads(connection.getresponse().read()).get("windows"):
                return
            time.sleep(0.2)

    def page(self, number: int, stop: threading.Event):
        connection, etags = connect(self.addresses[number % len(self.addresses)]), {}
        while not stop.is_set():
            for path in PATHS:
                etags[path] = get(connection, path, etags.get(path, ""))
            stop.wait(1)

    def cost(self, job):
        alone, beside = [], []
        for _ in range(self.bench.runs):
            alone.append(job())
            with Open(PAGES, self.page):
                beside.append(job())
        alone, beside = statistics.median(alone), statistics.median(beside)
        print(f"a job alone {alone:.2f} s, with {PAGES} pages open {beside:.2f} s: {beside / alone:.3f} of it "
              f"(medians of {self.bench.runs} alternating runs)")

    def latencies(self, job):
        taken = {"/data": [], "/metrics": [], "/healthz": []}

        def ask(_, stop):
            connection = connect(self.addresses[0])
            while not stop.is_set():
                for path, times in taken.items():
                    began = time.perf_counter()
                    get(connection, path)
                    times.append((time.perf_counter() - began) * 1000)
                time.sleep(0.02)

        with Open(1, ask):
            for _ in range(3 * self.bench.runs):
                job()
        for path, times in taken.items():
            times.sort()
            print(f"{path} while jobs run: p50 {times[len(times) // 2]:.1f} ms, "
                  f"p99 {times[len(times) * 99 // 100]:.1f} ms, of {len(times)} answers")

    def readers(self, cluster, job):
        """Readers that take nothing yet: what each of them costs the node, and that all get rows then."""
        host, port = self.addresses[0].split(":")
        request = ("GET /api/v1/streams/events/analytics.window?after=latest&brief=true HTTP/1.1\r\n"
                   "Host: localhost\r\nAccept: text/event-stream\r\n\r\n").encode()
        before, sockets = resident(cluster.pids()[0]), []
        for _ in range(READERS):
            sockets.append(socket.create_connection((host, int(port)), timeout=20))
            sockets[-1].sendall(request)
        # Until the newest window has come, too.
        time.sleep(6)
        each = (resident(cluster.pids()[0]) - before) / READERS / 1024
        seconds = statistics.median(job() for _ in range(self.bench.runs))
        served = sum(b"window_start" in reader.recv(1 << 16) for reader in sockets)
        for reader in sockets:
            reader.close()
        print(f"{READERS} readers of server-sent events at one node: {each:.0f} KiB each, {served} got rows; "
              f"a job meanwhile {seconds:.2f} s")

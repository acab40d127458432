"""A local cluster of real processes, and what jobs on it cost."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """One run: seconds, CPU seconds and peak resident bytes of all its processes."""

    seconds: float
    cpu: float
    client_bytes: int
    node_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.client_bytes + self.node_bytes


class Watched:
    """A process whose time and memory are taken when it ends."""

    def __init__(self, command: list[str], log: Path | None = None, env: dict | None = None):
        self.log = log.open("ab") if log else subprocess.DEVNULL
        self.out = subprocess.PIPE
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=self.out, stderr=self.log, env=env)

    def wait(self) -> tuple[Cost, str]:
        text = self.process.stdout.read().decode()
        _, status, usage = os.wait4(self.process.pid, 0)
        seconds = time.perf_counter() - self.began
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode != 0:
            raise SystemExit(f"{self.process.args} ended with {self.process.returncode}")
        return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024), text


def measured(command: list[str], log: Path | None = None) -> tuple[Cost, str]:
    return Watched(command, log).wait()


class Cluster:
    """`cortado local` in a folder; stopped and wiped at the end of a `with`."""

    def __init__(self, cortado: Path, folder: Path, nodes: int = 5, options: tuple[str, ...] = ()):
        self.cortado, self.folder, self.nodes, self.options = cortado, folder, nodes, options
        self.log = folder.with_suffix(".log")
        self.up_seconds = 0.0

    def __enter__(self):
        self.remove()
        self.up_seconds = self.local("up", "--nodes", str(self.nodes), *self.options).seconds
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        if (self.folder / "cluster.toml").exists():
            self.local("down", "--wipe")
        shutil.rmtree(self.folder, ignore_errors=True)

    def local_command(self, command: str, *arguments: str) -> list[str]:
        return [str(self.cortado), "local", command, *arguments, "--dir", str(self.folder)]

    def local(self, command: str, *arguments: str) -> Cost:
        return measured(self.local_command(command, *arguments), self.log)[0]

    def command(self, *arguments: str) -> list[str]:
        return [str(self.cortado), *arguments, "--cluster", str(self.folder)]

    def json(self, *arguments: str):
        done = subprocess.run(self.command(*arguments, "--json"), check=True, capture_output=True)
        return json.loads(done.stdout)

    def pids(self) -> list[int]:
        found = []
        for file in sorted(self.folder.glob("node-*/pid")):
            pid = int(re.search(r"pid = (\d+)", file.read_text())[1])
            if Path(f"/proc/{pid}").exists():
                found.append(pid)
        return found

    def cpu(self) -> float:
        """CPU seconds of all nodes so far."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def held(self, node: str) -> int:
        """Bytes written to a node's log; space that is only set aside is a hole."""
        total = 0
        for file in (self.folder / node).rglob("segment-*"):
            with file.open("rb") as segment:
                at, end = 0, os.fstat(segment.fileno()).st_size
                while at < end:
                    try:
                        at = os.lseek(segment.fileno(), at, os.SEEK_DATA)
                    except OSError:
                        break
                    hole = os.lseek(segment.fileno(), at, os.SEEK_HOLE)
                    total += hole - at
                    at = hole
        return total

    def unfinished(self, data: Path, out: Path, share: float):
        """Uploads at least this share of a dataset, and ends the client: the batches are kept."""
        before = len(self.json("jobs"))
        client = Watched(self.command("run", "coffee", "--data", str(data), "--out", str(out)), self.log)
        sent = total = 0
        while total == 0 or sent < share * total:
            jobs = self.json("jobs")
            if len(jobs) > before:
                tables = max(jobs, key=lambda job: job["job"])["tables"]
                sent = sum(table["bytes"] for table in tables)
                total = sum(table["total_bytes"] for table in tables)
        client.process.kill()
        client.process.wait()

    def job(self, data: Path, out: Path) -> Cost:
        """Client start to result files written."""
        return self.jobs([(data, out)])

    def jobs(self, work: list[tuple[Path, Path]]) -> Cost:
        """Clients at the same time, until the last one has its results."""
        before = self.cpu()
        # Measures the peak of the sum over all nodes, not the sum of their peaks.
        with Peak(self.pids()) as peak:
            began = time.perf_counter()
            clients = [
                Watched(self.command("run", "coffee", "--data", str(data), "--out", str(out)), self.log)
                for data, out in work
            ]
            costs = [client.wait()[0] for client in clients]
            seconds = time.perf_counter() - began
        cpu = sum(cost.cpu for cost in costs) + self.cpu() - before
        return Cost(seconds, cpu, max(cost.client_bytes for cost in costs), peak.bytes)


class Peak:
    """The largest sum of some processes' resident memory, looked at often."""

    def __init__(self, pids: list[int]):
        self.files = [open(f"/proc/{pid}/statm") for pid in pids]
        self.bytes = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.stop.is_set():
            total = 0
            for file in self.files:
                file.seek(0)
                total += int(file.read().split()[1]) * page
            self.bytes = max(self.bytes, total)
            self.stop.wait(0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        for file in self.files:
            file.close()

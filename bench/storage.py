"""What storage costs: disk, memory and time of what was written once. See scripts/bench.sh."""

import os
import statistics
import subprocess
import time
from pathlib import Path

from cluster import Cluster, Watched

MIB = 1 << 20


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def names(cluster: Cluster) -> list[str]:
    return [f"node-{number}" for number in range(1, cluster.nodes + 1)]


def held(cluster: Cluster) -> int:
    return sum(cluster.held(name) for name in names(cluster))


def segments(cluster: Cluster) -> int:
    """Files of the log of the node that has most."""
    return max(len(list((cluster.folder / name).rglob("segment-*"))) for name in names(cluster))


def settled(look, seconds: float = 10.0):
    """The smallest value within some seconds."""
    until = time.perf_counter() + seconds
    least = look()
    while time.perf_counter() < until:
        time.sleep(0.25)
        least = min(least, look())
    return least


class Storage:
    def __init__(self, bench, fill_log: Path):
        self.bench, self.fill_log = bench, fill_log
        self.out = bench.work / "out-storage"

    def run(self):
        print("| what | measured |")
        print("|---|---|")
        for measure in [self.finished, self.trickle, self.jobs, self.index, self.start]:
            for what, value in measure():
                print(f"| {what} | {value} |", flush=True)

    def finished(self):
        """Disk for a job that is done, beyond its result."""
        data = self.bench.dataset("300")
        with self.bench.cluster() as cluster:
            before = held(cluster)
            cluster.job(data.folder, self.out)
            peak = held(cluster)
            result = sum(file.stat().st_size for file in self.out.iterdir())
            after = settled(lambda: held(cluster))
            copies = 3 * result
            yield (f"disk of all nodes for a job of {data.bytes / MIB:.0f} MiB: at its end",
                   f"{(peak - before) / MIB:.1f} MiB")
            yield ("the same within 10 s, beyond three copies of the result",
                   f"{(after - before - copies) / MIB:.1f} MiB")

    def trickle(self):
        """Short jobs beside an upload that takes long."""
        large, small = self.bench.dataset("300"), self.bench.dataset("1")
        with self.bench.cluster() as cluster:
            arguments = ["run", "coffee", "--data", str(large.folder), "--upload-rate", "500000",
                         "--out", str(self.out)]
            trickle = Watched(cluster.command(*arguments), cluster.log)
            before = held(cluster)
            for _ in range(1000):
                cluster.job(small.folder, self.bench.work / "out-small")
            yield ("1,000 jobs of 1 MiB while an upload trickles: segments of the fullest node",
                   f"{settled(lambda: segments(cluster))}")
            yield ("the same: disk of all nodes", f"{(held(cluster) - before) / MIB:.1f} MiB")
            trickle.process.kill()
            trickle.process.wait()

    def jobs(self, count: int = 2000):
        """Jobs that are done and kept."""
        small = self.bench.dataset("1")
        with self.bench.cluster() as cluster:
            for _ in range(100):
                cluster.job(small.folder, self.bench.work / "out-small")
            pids = cluster.pids()
            before = [resident(pid) for pid in pids]
            for _ in range(count):
                cluster.job(small.folder, self.bench.work / "out-small")
            time.sleep(35)  # a sweep of the handoff
            each = [(resident(pid) - old) / count for pid, old in zip(pids, before)]
            yield (f"memory of a node for each of {count} jobs that are done (median, most)",
                   f"{statistics.median(each) / 1024:.1f} KiB, {max(each) / 1024:.1f} KiB")
            cpu, began = cluster.cpu(), time.perf_counter()
            time.sleep(60)
            share = (cluster.cpu() - cpu) / (time.perf_counter() - began) / len(pids)
            yield ("the same: processor of an idle node", f"{100 * share:.2f} % of a core")
            began = time.perf_counter()
            listed = cluster.json("jobs")
            yield (f"the same: `cortado jobs` of {len(listed)}",
                   f"{time.perf_counter() - began:.2f} s")
            began = time.perf_counter()
            subprocess.run(cluster.command("drain", "node-5"), check=True, capture_output=True)
            while Path(f"/proc/{pids[-1]}").exists():
                time.sleep(0.02)
            yield ("the same: a drain of one node", f"{time.perf_counter() - began:.2f} s")

    def filled(self, batches: int, size: int):
        """Starts one node whose log was filled; returns seconds until it answers, and its memory."""
        with self.bench.cluster(1, "--reviver", "none", "--min-copies", "1", "--replicas", "1") as cluster:
            cluster.local("down")
            data = next(folder for folder in cluster.folder.rglob("*") if (folder / "state-owner").exists())
            subprocess.run([self.fill_log, data, "--batches", str(batches), "--bytes", str(size)],
                           check=True)
            bytes_ = cluster.held("node-1")
            # The first start reads the segment that was written last and ends it.
            times = []
            for _ in range(3):
                began = time.perf_counter()
                starting = Watched(cluster.local_command("up"), cluster.log)
                ask = cluster.command("nodes", "--timeout", "1")
                while subprocess.run(ask, capture_output=True).returncode != 0:
                    time.sleep(0.005)
                times.append(time.perf_counter() - began)
                starting.wait()
                memory = resident(cluster.pids()[0])
                cluster.local("down")
            return bytes_, statistics.median(times), memory

    def index(self):
        _, _, empty = self.filled(1, 100)
        bytes_, seconds, memory = self.filled(1_000_000, 100)
        yield ("memory of the index for 1,000,000 small batches",
               f"{(memory - empty) / MIB:.0f} MiB ({bytes_ / 1e9:.2f} GB of log)")
        yield ("the same: start", f"{seconds:.2f} s")

    def start(self):
        _, none, _ = self.filled(1, 100)
        for count in [16_000, 160_000]:
            bytes_, seconds, _ = self.filled(count, 64 << 10)
            yield (f"start with {bytes_ / 1e9:.1f} GB of log; without any: {none:.2f} s",
                   f"{seconds:.2f} s")

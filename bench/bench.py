"""Measures Cortado against DuckDB and Polars, and against its own limits. See scripts/bench.sh."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster, Cost, Watched, measured
from events import Events
from pages import Pages
from stages import profile
from storage import Storage

HERE = Path(__file__).parent
REPORTS = ["q1.csv", "q2_quantity.csv", "q2_revenue.csv", "q3.csv", "q4.csv"]
MIB = 1 << 20
THREADS = 2


@dataclass
class Dataset:
    """A generated dataset."""

    folder: Path
    rows: int
    bytes: int

    @classmethod
    def make(cls, cortado: Path, work: Path, name: str, months: str, per_month: int, users: int):
        folder = work / f"data-{name}"
        marker = folder / ".complete"
        wanted = f"{months} {per_month} {users}"
        if not marker.exists() or marker.read_text() != wanted:
            print(f"making {folder}", file=sys.stderr)
            arguments = ["--transactions-per-month", str(per_month), "--users", str(users)]
            command = [cortado, "gen", "coffee", "--out", folder, "--months", months, *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            marker.write_text(wanted)
        rows = size = 0
        for file in folder.rglob("*.csv"):
            # Only the tables of the plan are read.
            if file.parent.name in ("vouchers", "payment_methods"):
                continue
            # Read in pieces, because the peak memory of a child begins with that of this process.
            rows -= 1
            with file.open("rb") as lines:
                while piece := lines.read(MIB):
                    rows += piece.count(b"\n")
                    size += len(piece)
        return cls(folder, rows, size)


def median(costs: list[Cost]) -> Cost:
    def mid(of):
        return statistics.median(of(cost) for cost in costs)

    return Cost(mid(lambda c: c.seconds), mid(lambda c: c.cpu), mid(lambda c: c.client_bytes),
                mid(lambda c: c.node_bytes))


class Bench:
    def __init__(self, arguments):
        self.cortado = Path(arguments.bin).resolve() / "cortado"
        self.work = Path(arguments.work)
        self.runs = arguments.runs
        self.work.mkdir(parents=True, exist_ok=True)

    def dataset(self, name: str) -> Dataset:
        shape = {
            "1": ("202401,202501", 1700, 2000),
            "30": ("202401,202501", 62_000, 100_000),
            "300": ("202401,202501", 620_000, 1_000_000),
            "3000": ("202401,202501", 6_200_000, 10_000_000),
        }[name]
        return Dataset.make(self.cortado, self.work, name, *shape)

    def engine(self, name: str, data: Dataset) -> Cost:
        """Seconds of the work alone; CPU and memory of the process, its start and imports too."""
        command = [sys.executable, str(HERE / "engines.py"), name, str(data.folder),
                   str(self.work / f"out-{name}"), str(THREADS)]
        cost, text = measured(command)
        cost.seconds = json.loads(text)["seconds"]
        return cost

    def cluster(self, nodes: int = 5, *options: str) -> Cluster:
        return Cluster(self.cortado, self.work / f"cluster-{nodes}", nodes, options)

    def same(self, left: Path, right: Path):
        for name in REPORTS:
            if (left / name).read_bytes() != (right / name).read_bytes():
                raise SystemExit(f"{left / name} and {right / name} differ")

    def compare(self, sizes: list[int]):
        """All engines by turns on the standard dataset."""
        data = self.dataset("300")
        engines = ["duckdb", "polars"]
        costs: dict[str, list[Cost]] = {}
        out = self.work / "out-cortado"
        for nodes in sizes:
            with self.cluster(nodes) as cluster:
                cluster.job(data.folder, out)  # fills the disk cache for all engines
                for _ in range(self.runs):
                    costs.setdefault(f"cortado {nodes}", []).append(cluster.job(data.folder, out))
                    for engine in engines:
                        costs.setdefault(engine, []).append(self.engine(engine, data))
                        self.same(out, self.work / f"out-{engine}")
        medians = {name: median(runs) for name, runs in costs.items()}
        base = [medians[engine].seconds for engine in engines]
        print(f"{data.bytes / MIB:.0f} MiB, {data.rows:,} rows, median of {self.runs} alternating runs, "
              "results equal byte for byte\n")
        print("| | seconds | rows/s | CPU seconds | peak memory MiB (client + nodes) | of DuckDB | of Polars |")
        print("|---|---|---|---|---|---|---|")
        labels = [f"cortado {nodes}" for nodes in sizes] + engines
        for label in labels:
            cost = medians[label]
            name = {"duckdb": "DuckDB, 2 threads", "polars": "Polars, 2 threads"}.get(label)
            if name is None:
                count = label.split()[1]
                name = f"Cortado, {count} node{'s' if count != '1' else ''}"
            memory = f"{cost.bytes / MIB:.0f}"
            if cost.node_bytes:
                memory = f"{cost.client_bytes / MIB:.0f} + {cost.node_bytes / MIB:.0f}"
            print(f"| {name} | {cost.seconds:.2f} | {data.rows / cost.seconds:,.0f} | {cost.cpu:.2f} | "
                  f"{memory} | {cost.seconds / base[0]:.2f} | {cost.seconds / base[1]:.2f} |")

    def curve(self):
        """Cost per row, from small to large."""
        print("| dataset MiB | rows | seconds | CPU seconds | ns per row | CPU ns per row | peak MiB (client + nodes) |")
        print("|---|---|---|---|---|---|---|")
        for name in ["30", "300", "3000"]:
            data = self.dataset(name)
            with self.cluster() as cluster:
                out = self.work / "out-curve"
                cluster.job(data.folder, out)
                runs = self.runs if name != "3000" else min(self.runs, 3)
                cost = median([cluster.job(data.folder, out) for _ in range(runs)])
            print(f"| {data.bytes / MIB:.0f} | {data.rows:,} | {cost.seconds:.2f} | {cost.cpu:.2f} | "
                  f"{cost.seconds / data.rows * 1e9:.0f} | {cost.cpu / data.rows * 1e9:.0f} | "
                  f"{cost.client_bytes / MIB:.0f} + {cost.node_bytes / MIB:.0f} |", flush=True)

    def small(self):
        """Latency of a small job on an idle cluster."""
        data = self.dataset("1")
        with self.cluster() as cluster:
            cluster.job(data.folder, self.work / "out-small")
            seconds = sorted(
                cluster.job(data.folder, self.work / "out-small").seconds * 1000 for _ in range(50))
        print(f"{data.bytes / MIB:.2f} MiB, 50 jobs, client start to result files: "
              f"p50 {statistics.median(seconds):.0f} ms, p99 {seconds[-1]:.0f} ms, "
              f"fastest {seconds[0]:.0f} ms")

    def two_clients(self):
        data = self.dataset("300")
        one, two = [], []
        outs = [self.work / "out-first", self.work / "out-second"]
        with self.cluster() as cluster:
            cluster.job(data.folder, outs[0])
            for _ in range(self.runs):
                one.append(cluster.job(data.folder, outs[0]))
                two.append(cluster.jobs([(data.folder, out) for out in outs]))
                self.same(*outs)
        one, two = median(one), median(two)
        print(f"one client {one.seconds:.2f} s, two at the same time {two.seconds:.2f} s: "
              f"{two.seconds / one.seconds:.2f} times")

    def start(self):
        seconds = []
        for _ in range(self.runs):
            with self.cluster() as cluster:
                seconds.append(cluster.up_seconds)
        print(f"`cortado local up` of five new nodes: median {statistics.median(seconds):.2f} s, "
              f"worst {max(seconds):.2f} s of {len(seconds)}")

    def catch_up(self):
        """A node with an empty disk comes back after a job: how fast it gets its deltas."""
        data = self.dataset("300")
        runs = []
        for _ in range(self.runs):
            # A killed node stays dead, so that its disk can be emptied.
            with self.cluster(5, "--reviver", "none") as cluster:
                # Deltas are a small part of the input; several uploads make enough of them. A job that is
                # done has none.
                for _ in range(8):
                    cluster.unfinished(data.folder, self.work / "out-catch-up", 0.8)
                wanted = cluster.held("node-3")
                cluster.local("kill", "node-3")
                cluster.local("wipe-disk", "node-3")
                began = time.perf_counter()
                starting = Watched(cluster.local_command("start", "node-3"), cluster.log)
                looks = []
                while not looks or looks[-1][1] < wanted:
                    looks.append((time.perf_counter() - began, cluster.held("node-3")))
                    if looks[-1][0] > 60:
                        raise SystemExit(f"only {looks[-1][1]} of {wanted} bytes after 60 s")
                    time.sleep(0.002)
                starting.wait()
                # Before its first delta arrives, the node starts and joins the others.
                idle = [look for look in looks if look[1] < wanted / 100][-1]
                runs.append((wanted, looks[-1][0], (looks[-1][1] - idle[1]) / (looks[-1][0] - idle[0])))
        size, seconds, rate = (statistics.median(values) for values in zip(*runs))
        print(f"a node with an empty disk has its {size / 1e6:.0f} MB again {seconds:.2f} s after its "
              f"process was started; from the first delta to the last {rate / 1e6:.0f} MB/s")

    def events(self):
        Events(self).run()

    def http(self):
        Pages(self).run()

    def storage(self):
        Storage(self, self.cortado.parent / "fill_log").run()

    def profile(self):
        """Where the processors' time goes."""
        data = self.dataset("300")
        with self.cluster() as cluster:
            profile(cluster, data.folder, self.work / "out-profile", self.work)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh")
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--work", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--nodes", default="1,3,5,8", help="cluster sizes to compare")
    for flag, text in [
        ("--curve", "cost per row at 30 MB, 300 MB, 3 GB"),
        ("--small", "latency of a 1 MB job on an idle cluster"),
        ("--two-clients", "two clients at the same time"),
        ("--start", "start of a five-node cluster"),
        ("--catch-up", "a node with an empty disk comes back"),
        ("--storage", "disk, memory and start time of what was written once"),
        ("--events", "events per second of a stream, and how long until they count"),
        ("--http", "what pages cost a job, how soon they are answered, and a thousand readers of a stream"),
        ("--profile", "where the processors' time goes, by stage (needs perf)"),
    ]:
        parser.add_argument(flag, action="store_true", help=text)
    arguments = parser.parse_args()
    bench = Bench(arguments)
    modes = ["curve", "small", "two_clients", "start", "catch_up", "storage", "events", "http", "profile"]
    chosen = [mode for mode in modes if getattr(arguments, mode)]
    for mode in chosen:
        getattr(bench, mode)()
    if not chosen:
        bench.compare([int(nodes) for nodes in arguments.nodes.split(",")])


if __name__ == "__main__":
    main()

"""What a stream of events takes: events per second, and how long until they count. See scripts/bench.sh."""

import datetime
import json
import random
import statistics
import subprocess
import sys
import threading
import time
import uuid

from broker import Broker, chain
from cluster import Cluster, measured

EVENTS = 1_000_000
# Events in a second of event time: a file has as many windows of 5 s as this makes.
DENSITY = 20_000
NODES = 3
# Events that go through a broker, by events in a message.
BROKER = {1: 20_000, 500: 200_000}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Events:
    def __init__(self, bench):
        self.bench = bench

    def run(self):
        print("| what | measured |")
        print("|---|---|")
        for measure in [self.sustained, self.latency, self.broker]:
            for what, value in measure():
                print(f"| {what} | {value} |", flush=True)

    def file(self):
        """Events of about 400 bytes, in order of time."""
        path = self.bench.work / f"events-{EVENTS}.ndjson"
        if path.exists():
            return path
        make = random.Random(1)
        start = datetime.datetime(2026, 1, 1)
        made = path.with_suffix(".new")
        with made.open("w") as lines:
            for number in range(EVENTS):
                at = start + datetime.timedelta(seconds=number / DENSITY)
                lines.write(json.dumps({
                    "event_id": str(uuid.UUID(int=make.getrandbits(128), version=4)),
                    "timestamp": at.isoformat(timespec="milliseconds") + "Z",
                    "region": make.choice(["norte", "sur", "centro", "este", "oeste"]),
                    "source": "security.incident",
                    "schema_version": "1.0",
                    "correlation_id": f"c-{make.getrandbits(256):064x}",
                    "payload": {
                        "crime_type": make.choice(["theft", "robbery", "assault", "fraud"]),
                        "severity": make.choice(["low", "medium", "high"]),
                        "location": {"latitude": make.uniform(-90, 90), "longitude": make.uniform(-180, 180)},
                        "reported_by": "citizen",
                    },
                }) + "\n")
        made.rename(path)
        return path

    def settled(self, cluster: Cluster, stream: str):
        """Waits until all windows are closed; returns the counts of events."""
        while True:
            status = cluster.json("events", "status", "--stream", stream)
            if status["events"]["open"] == 0:
                return status["events"]
            time.sleep(0.05)

    def sustained(self):
        """A file as fast as it goes: client start to the last acknowledgement, and to the last window."""
        path = self.file()
        size = path.stat().st_size / EVENTS
        acknowledged, counted, cpu = [], [], []
        with self.bench.cluster(NODES) as cluster:
            for run in range(self.bench.runs):
                stream = f"run-{run}"
                cluster.json("events", "start", "--stream", stream)
                before, began = cluster.cpu(), time.perf_counter()
                cost, _ = measured(cluster.command("events", "publish", "--stream", stream, "--publisher", "p",
                                                   "--from", str(path)), cluster.log)
                counts = self.settled(cluster, stream)
                seconds = time.perf_counter() - began
                if counts["received"] != EVENTS or counts["counted"] != EVENTS:
                    raise SystemExit(f"not every event counts: {counts}")
                acknowledged.append(EVENTS / cost.seconds)
                counted.append(EVENTS / seconds)
                cpu.append(1e6 * (cost.cpu + cluster.cpu() - before) / EVENTS)
                # A stream that has ended gives its disk back.
                cluster.json("events", "stop", "--stream", stream)
        median = statistics.median
        yield f"{EVENTS:,} events of {size:.0f} bytes acknowledged, events/s", f"{median(acknowledged):,.0f}"
        yield "the same, until all windows are published, events/s", f"{median(counted):,.0f}"
        yield "processor time of nodes and publisher, µs an event", f"{median(cpu):.1f}"

    def latency(self):
        """Synthetic events at a fixed rate."""
        for rate in [1_000, 20_000]:
            with self.bench.cluster(NODES) as cluster:
                cluster.json("events", "start")
                waits = []
                tail = subprocess.Popen(cluster.command("events", "tail", "analytics.window"),
                                        stdout=subprocess.PIPE, text=True)

                def read(lines=tail.stdout, waits=waits):
                    for line in lines:
                        row = json.loads(line)
                        end = datetime.datetime.fromisoformat(row["window_end"].replace("Z", "+00:00"))
                        waits.append(time.time() - end.timestamp())

                reader = threading.Thread(target=read)
                reader.start()
                publish = cluster.command("events", "publish", "--json", "--rate", str(rate), "--for", "30s")
                _, text = measured(publish, cluster.log)
                cluster.json("events", "stop")
                reader.join()
                tail.wait()
                took = json.loads(text)["acknowledged_ms"]
                # The last ones are closed by the end of the publisher.
                closed = waits[:-2]
                what = f"at {rate:,} events/s"
                yield f"batch sent to acknowledged {what}, ms (p50, p99)", f"{took['p50']:.1f}, {took['p99']:.1f}"
                yield (f"end of a window to its row {what}, with 2 s of lateness, s (median, most)",
                       f"{statistics.median(closed):.2f}, {max(closed):.2f}")

    def broker(self):
        """The same file through RabbitMQ and a chain of Python processes."""
        missing = Broker.missing()
        if missing:
            print(f"not compared with a broker: {missing}", file=sys.stderr)
            return
        path = self.file()
        for batch, events in BROKER.items():
            runs = [chain(self.bench.work / "broker", path, events, batch) for _ in range(self.bench.runs)]
            published, through = (statistics.median(values) for values in zip(*runs))
            what = f"the first {events:,} events through RabbitMQ and Python, {batch} in a message"
            yield f"{what}: published and confirmed, events/s", f"{published:,.0f}"
            yield f"{what}: validated, counted and audited, events/s", f"{through:,.0f}"

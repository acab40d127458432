"""The stages of a pipeline on a broker, as they are usually written: one process each. See broker.py.

    chain.py publish URL FILE EVENTS BATCH
    chain.py validate URL EVENTS SCHEMAS
    chain.py aggregate URL EVENTS DATABASE
    chain.py audit URL EVENTS DATABASE

A message has a batch of events, one a line. Queues and messages are durable, each message is confirmed
before the one that it was made of is acknowledged, and a database commits once for each message.
"""

import asyncio
import sqlite3
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import aio_pika
import jsonschema_rs
import orjson
import uvloop

# Messages on their way to or from the broker.
WINDOW = 32
EVERY = 5


def message(lines: list[bytes]) -> aio_pika.Message:
    return aio_pika.Message(b"\n".join(lines), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)


async def queues(channel):
    """What is received, and for each of the two stages behind it what is valid."""
    received = await channel.declare_queue("received", durable=True)
    valid = await channel.declare_exchange("valid", aio_pika.ExchangeType.FANOUT, durable=True)
    behind = {}
    for name in ("aggregate", "audit"):
        behind[name] = await channel.declare_queue(name, durable=True)
        await behind[name].bind(valid)
    return received, valid, behind


async def publish(channel, file: str, events: str, batch: str):
    await queues(channel)
    window = asyncio.Semaphore(WINDOW)

    async def send(lines):
        async with window:
            await channel.default_exchange.publish(message(lines), "received")

    async with asyncio.TaskGroup() as group:
        lines, left = [], int(events)
        for line in Path(file).open("rb"):
            lines.append(line.rstrip(b"\n"))
            left -= 1
            if len(lines) == int(batch) or left == 0:
                await window.acquire()
                window.release()
                group.create_task(send(lines))
                lines = []
            if left == 0:
                break


async def consume(queue, events: int, handle):
    """Handles messages until so many events came."""
    left = events
    async with queue.iterator() as messages:
        async for got in messages:
            lines = got.body.split(b"\n")
            await handle(lines)
            await got.ack()
            left -= len(lines)
            if left <= 0:
                return


async def validate(channel, events: str, schemas: str):
    received, valid, _ = await queues(channel)
    folder = Path(schemas)
    compiled = {
        path.stem: jsonschema_rs.validator_for(orjson.loads(path.read_bytes()), validate_formats=True)
        for path in folder.glob("*.json")
    }
    envelope = compiled["envelope"]

    async def handle(lines):
        good = []
        for line in lines:
            event = orjson.loads(line)
            payload = compiled.get(f"{event['source']}-{event['schema_version']}")
            if envelope.is_valid(event) and payload and payload.is_valid(event["payload"]):
                good.append(line)
        await valid.publish(message(good), "")

    await consume(received, int(events), handle)


async def aggregate(channel, events: str, database: str):
    """Counts each id once, by window, region and source."""
    _, _, behind = await queues(channel)
    db = sqlite3.connect(database, isolation_level=None)
    db.executescript("""
        PRAGMA journal_mode = WAL;
        CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID;
        CREATE TABLE windows (start INTEGER, region TEXT, source TEXT, n INTEGER,
            PRIMARY KEY (start, region, source)) WITHOUT ROWID;
    """)

    async def handle(lines):
        counts = Counter()
        db.execute("BEGIN")
        for line in lines:
            event = orjson.loads(line)
            if db.execute("INSERT OR IGNORE INTO ids VALUES (?)", (event["event_id"],)).rowcount:
                at = datetime.fromisoformat(event["timestamp"]).timestamp()
                counts[int(at // EVERY * EVERY), event["region"], event["source"]] += 1
        db.executemany("""INSERT INTO windows VALUES (?, ?, ?, ?)
                          ON CONFLICT DO UPDATE SET n = n + excluded.n""",
                       [(*key, n) for key, n in counts.items()])
        db.execute("COMMIT")

    await consume(behind["aggregate"], int(events), handle)


async def audit(channel, events: str, database: str):
    _, _, behind = await queues(channel)
    db = sqlite3.connect(database, isolation_level=None)
    db.executescript("""
        PRAGMA journal_mode = WAL;
        CREATE TABLE events_in (event_id TEXT PRIMARY KEY, timestamp TEXT, region TEXT, source TEXT,
            schema_version TEXT, correlation_id TEXT, payload_json TEXT) WITHOUT ROWID;
    """)

    async def handle(lines):
        rows = []
        for line in lines:
            event = orjson.loads(line)
            rows.append((event["event_id"], event["timestamp"], event["region"], event["source"],
                         event["schema_version"], event.get("correlation_id"),
                         orjson.dumps(event["payload"])))
        db.execute("BEGIN")
        db.executemany("INSERT OR IGNORE INTO events_in VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")

    await consume(behind["audit"], int(events), handle)


async def main(role: str, url: str, *arguments: str):
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(prefetch_count=WINDOW)
        await {"publish": publish, "validate": validate, "aggregate": aggregate, "audit": audit}[role](
            channel, *arguments)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))

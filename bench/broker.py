"""The same events through a broker: RabbitMQ, and a chain of Python processes (chain.py)."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCHEMAS = HERE.parent / "data" / "schemas"
PACKAGES = ["aio-pika", "jsonschema-rs", "orjson", "uvloop"]
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PATIENCE = 600


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Broker:
    """A broker of its own on loopback; stopped and wiped at the end of a `with`."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.port, self.epmd = free_port(), free_port()
        self.log = self.folder.with_suffix(".log")

    @staticmethod
    def missing() -> str | None:
        """Why it can't be had here, if it can't."""
        if not SERVER.exists() or shutil.which("epmd") is None:
            return "there is no rabbitmq-server (Debian: apt-get install rabbitmq-server)"
        installed = subprocess.run([sys.executable, "-m", "pip", "install", "-q", *PACKAGES], check=False)
        return None if installed.returncode == 0 else f"pip can't install {', '.join(PACKAGES)}"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        plugins = self.folder / "plugins"
        plugins.write_text("[].")
        env = os.environ | {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench-{os.getpid()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
        }
        with self.log.open("ab") as log:
            self.server = subprocess.Popen([SERVER], env=env, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while True:
            if self.server.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise SystemExit(f"the broker does not start: see {self.log}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.1)

    def __exit__(self, *_):
        # Of the whole session, because the server has started others.
        if self.server.poll() is None:
            os.killpg(self.server.pid, 15)
        self.server.wait()
        env = os.environ | {"ERL_EPMD_PORT": str(self.epmd)}
        subprocess.run(["epmd", "-kill"], env=env, stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def chain(folder: Path, file: Path, events: int, batch: int) -> tuple[float, float]:
    """Events a second that were published and confirmed, and that went through the whole chain."""
    with Broker(folder) as broker:
        databases = {name: str(broker.folder / f"{name}.db") for name in ("aggregate", "audit")}
        roles = {
            "validate": [str(events), str(SCHEMAS)],
            "aggregate": [str(events), databases["aggregate"]],
            "audit": [str(events), databases["audit"]],
        }

        def start(role: str, arguments: list[str]):
            return subprocess.Popen([sys.executable, str(HERE / "chain.py"), role, broker.url, *arguments])

        others = [start(role, arguments) for role, arguments in roles.items()]
        began = time.perf_counter()
        try:
            publisher = start("publish", [str(file), str(events), str(batch)])
            others.insert(0, publisher)
            took = []
            for process in others:
                if process.wait(PATIENCE) != 0:
                    raise SystemExit(f"{process.args[1:3]} ended with {process.returncode}")
                took.append(time.perf_counter() - began)
        finally:
            for process in others:
                if process.poll() is None:
                    process.kill()
        with sqlite3.connect(databases["aggregate"]) as db:
            counted = db.execute("SELECT sum(n) FROM windows").fetchone()[0]
        with sqlite3.connect(databases["audit"]) as db:
            audited = db.execute("SELECT count(*) FROM events_in").fetchone()[0]
        if (counted, audited) != (events, events):
            raise SystemExit(f"of {events} events {counted} were counted, and {audited} are in the audit")
        return events / took[0], events / max(took)

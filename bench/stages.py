"""Where the processors' time goes while a job runs: samples by perf, told apart by process, thread and
function."""

import collections
import re
import shutil
import subprocess
from pathlib import Path

HERTZ = 1999

# Who: a pattern of "process thread", then a pattern of the function; the first that fits counts.
MEMORY = r"page_fault|clear_page|mem(move|cpy|set)|malloc|free|unmap|_fault|memcg|folio|zap_|lru_|rmqueue"
STAGES = [
    ("client: encrypt, decrypt", r"client", r"aes|gcm|chacha|ring_core"),
    ("client: cut into batches, hash", r"client", r"csv|[cC]ut|memchr|xxh|content_hash"),
    ("client: memory", r"client", MEMORY),
    ("client: read files", r"client cortado", r"copy_to_iter|filemap|read|xas_|ext4|entry_SYSCALL"),
    ("client: network", r"client", r"quinn|udp|skb|sock|copy_|ip_|net|loopback|rustls|epoll"),
    ("client: other", r"client", r""),
    ("nodes: log", r"node log-committer", r""),
    ("nodes: membership", r"node gossip", r""),
    ("nodes: decode, filter", r"node worker", r"decode|csv|separators|number|calendar|utf8|expr"),
    ("nodes: memory", r"node", MEMORY),
    ("nodes: aggregate, encode deltas", r"node worker", r"map|rows|batch|hash|sort|wire|Texts|memcmp"),
    ("nodes: fold, finish", r"node worker", r"fold|[fF]inal|[lL]edger|[mM]erge|join"),
    ("nodes: workers, other", r"node worker", r""),
    ("nodes: encrypt, decrypt", r"node", r"aes|gcm|chacha|ring_core"),
    ("nodes: replicate (core)", r"node", r"cortado_(core|protocol|log|node)"),
    ("nodes: network", r"node", r"quinn|udp|skb|sock|copy_|ip_|net|loopback|rustls|epoll"),
    ("nodes: other", r"node", r""),
]


def stage(who: str, function: str) -> str:
    return next(name for name, of, what in STAGES if re.match(of, who) and re.search(what, function))


def profile(cluster, data: Path, out: Path, work: Path):
    """Runs one job under perf and prints how its processor time divides into stages."""
    if not shutil.which("perf"):
        raise SystemExit("perf is missing, which takes the samples; on Debian: apt-get install linux-perf")
    cluster.job(data, out)
    samples = work / "perf.data"
    command = cluster.command("run", "coffee", "--data", str(data), "--out", str(out))
    subprocess.run(["perf", "record", "-q", "-a", "-F", str(HERTZ), "-o", str(samples), "--", *command],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script = ["perf", "script", "-i", str(samples), "-F", "comm,pid,tid,ip,sym"]
    text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    nodes = set(cluster.pids())
    stages, folded = collections.Counter(), collections.Counter()
    names = {}
    parsed = []
    for line in text.splitlines():
        # A thread's name may have spaces; its ids have a slash between them.
        match = re.match(r"\s*(.+?)\s+(\d+)/(\d+)\s+[0-9a-f]+\s+(.*)", line)
        if match:
            thread, pid, tid, function = match[1], int(match[2]), int(match[3]), match[4]
            names.setdefault(pid, set()).add(thread)
            parsed.append((thread, pid, function))
    client = {pid for pid, threads in names.items() if "cortado" in threads and pid not in nodes}
    for thread, pid, function in parsed:
        kind = "node" if pid in nodes else "client" if pid in client else None
        if kind is None:
            continue
        function = re.sub(r"::h[0-9a-f]{16}$", "", function)
        name = stage(f"{kind} {thread}", function)
        stages[name] += 1
        folded[f"{kind};{thread};{name};{function}"] += 1
    total = sum(stages.values())
    print(f"{total / HERTZ:.2f} CPU seconds of one job, by samples\n")
    print("| stage | % | CPU seconds |")
    print("|---|---|---|")
    for name, _, _ in STAGES:
        if stages[name]:
            share, seconds = 100 * stages[name] / total, stages[name] / HERTZ
            print(f"| {name} | {share:.1f} | {seconds:.2f} |")
    flame = work / "profile.folded"
    flame.write_text("".join(f"{stack} {count}\n" for stack, count in sorted(folded.items())))
    print(f"\n{flame}: process, thread, stage, function; for inferno-flamegraph or speedscope.app")

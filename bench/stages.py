"""Where the processors' time goes while a job runs: samples of call stacks by perf, as stages and as a flame
graph."""

import collections
import re
import shutil
import subprocess
from pathlib import Path

HERTZ = 3999

MEMORY = r"page_fault|madvise|munmap|^(_int_)?(malloc|free|realloc)|^unlink_chunk"
CIPHER = r"aes_gcm|chacha|ring_core|HeaderProtection"
HASH = r"xxhash|content_hash"
NETWORK = r"quinn|sendmsg|recvm+sg|epoll|Endpoint"

# Name of the stage; "client" or "node", and the thread; a pattern for the name of a function in the
# call stack. The first matching row is used.
STAGES = [
    ("client: read files", "client", r"vfs_read"),
    ("client: memory", "client", MEMORY),
    ("client: hash", "client", HASH),
    ("client: cut into batches", "client", r"next_batch|Cutter"),
    ("client: encrypt, decrypt", "client", CIPHER),
    ("client: network", "client", NETWORK),
    ("client: other", "client", r""),
    ("nodes: log", "node log-committer", r""),
    ("nodes: membership", "node gossip", r""),
    ("nodes: memory", "node", MEMORY),
    ("nodes: decode", "node worker", r"decode::|separators|columns|validate_utf8|parse_(eight|date|time|decimal)"),
    ("nodes: filter", "node worker", r"expr::|map::select"),
    ("nodes: aggregate, encode deltas", "node worker", r"map_batch"),
    ("nodes: fold", "node worker", r"SlotFold|LookupFold|task::(fold|lookup|add_all)"),
    ("nodes: finish", "node worker", r"task::|Final|summar"),
    ("nodes: hash", "node", HASH),
    ("nodes: encrypt, decrypt", "node", CIPHER),
    ("nodes: network", "node", NETWORK),
    ("nodes: take in batches", "node", r"clients::|FrameReader"),
    ("nodes: replicate", "node", r"cortado_(core|protocol|log|node)"),
    ("nodes: other", "node", r""),
]


def stage(who: str, stack: list[str]) -> str:
    return next(
        name
        for name, of, what in STAGES
        if who.startswith(of) and (not what or any(re.search(what, frame) for frame in stack))
    )


def stacks(samples: Path):
    """Thread, process and call stack of every sample, the innermost function first."""
    script = ["perf", "script", "-i", str(samples), "-F", "comm,pid,tid,ip,sym"]
    text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    for block in text.split("\n\n"):
        head, *frames = block.strip("\n").split("\n")
        # A thread's name may have spaces; its ids have a slash between them.
        match = re.match(r"\s*(.+?)\s+(\d+)/\d+", head)
        if match and frames:
            names = [frame.strip().partition(" ")[2] for frame in frames]
            yield match[1], int(match[2]), [re.sub(r"::h[0-9a-f]{16}$", "", name) for name in names]


def profile(cluster, data: Path, out: Path, work: Path):
    """Runs one job under perf and prints how its processor time divides into stages. Call stacks need
    programs with frame pointers, and the graph needs inferno; scripts/bench.sh sees to both."""
    if not shutil.which("perf"):
        raise SystemExit("perf is missing, which takes the samples; on Debian: apt-get install linux-perf")
    cluster.job(data, out)
    samples = work / "perf.data"
    command = cluster.command("run", "coffee", "--data", str(data), "--out", str(out))
    record = ["perf", "record", "-q", "-a", "--call-graph", "fp", "-F", str(HERTZ), "-o", str(samples)]
    subprocess.run([*record, "--", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    nodes = set(cluster.pids())
    parsed = list(stacks(samples))
    client = {pid for thread, pid, _ in parsed if thread == "cortado" and pid not in nodes}
    stages, folded = collections.Counter(), collections.Counter()
    for thread, pid, stack in parsed:
        kind = "node" if pid in nodes else "client" if pid in client else None
        if kind is None:
            continue
        stages[stage(f"{kind} {thread}", stack)] += 1
        # Semicolons separate frames.
        frames = [frame.replace(";", ":") for frame in reversed(stack)]
        folded[";".join([kind, thread, *frames])] += 1
    total = sum(stages.values())
    print(f"{total / HERTZ:.2f} CPU seconds of one job, by samples\n")
    print("| stage | % | CPU seconds |")
    print("|---|---|---|")
    for name, _, _ in STAGES:
        if stages[name]:
            share, seconds = 100 * stages[name] / total, stages[name] / HERTZ
            print(f"| {name} | {share:.1f} | {seconds:.2f} |")
    lines = "".join(f"{stack} {count}\n" for stack, count in sorted(folded.items()))
    (work / "profile.folded").write_text(lines)
    draw = [str(work / "tools/bin/inferno-flamegraph"), "--title", "Cortado: one job"]
    drawn = subprocess.run(draw, input=lines, check=True, capture_output=True, text=True).stdout
    (work / "profile.svg").write_text(drawn)
    print(f"\nflame graph: {work / 'profile.svg'} (call stacks: profile.folded)")

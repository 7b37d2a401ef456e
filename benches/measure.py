"""What the benchmarks share: timed commands, medians, a table of targets."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

MB = 1 << 20


class Run:
    """What a command took: wall seconds and peak memory in bytes."""

    def __init__(self, seconds, peak):
        self.seconds = seconds
        self.peak = peak


def say(*words):
    """Tells how far the benchmark is."""
    print(f"benches/{os.path.basename(sys.argv[0])}:", *words, file=sys.stderr, flush=True)


def measured(command, env=None, stdout=subprocess.DEVNULL):
    """Runs a command to its end; its peak memory is the kernel's own count (as /usr/bin/time -v shows it)."""
    with tempfile.TemporaryFile() as words:
        start = time.monotonic()
        child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=words)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            words.seek(0)
            text = words.read().decode(errors="replace")
            say(f"failed ({child.returncode}): {' '.join(map(str, command))}\n{text}")
            raise SystemExit(1)
    return Run(seconds, usage.ru_maxrss * 1024)


def output(command, env=None):
    """Runs a command and gives what it wrote to stdout."""
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout.decode().strip()


def median(runs):
    return statistics.median(run.seconds for run in runs)


class Table:
    """Rows of work, our figure, the peers' figures, the target, and whether it was met."""

    def __init__(self):
        self.rows = []

    def row(self, work, ours, peer, target, met):
        self.rows.append((work, ours, peer, target, "met" if met else "**not met**"))
        say(f"{work}: {ours}; {peer}; target {target}: {'met' if met else 'NOT MET'}")

    def met(self):
        return all("not met" not in row[-1] for row in self.rows)

    def markdown(self):
        lines = ["| work | pcocc | compared with | target | |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

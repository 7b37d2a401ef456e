# Runs a command in a terminal, and types into it: see `Box::in_terminal` in common.rs.
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios

job = json.loads(sys.argv[1])
signal.alarm(20)


def size(lines, letters):
    return struct.pack("HHHH", lines, letters, 0, 0)


pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, size(33, 77))
    os.execvp(job["argv"][0], job["argv"])
seen, last = b"", 0


def read():
    global seen
    try:
        seen += os.read(terminal, 4096).replace(b"\r", b"")
        return True
    except OSError:
        return False


for word, typed in job["steps"]:
    while (at := seen.find(word.encode(), last)) < 0:
        if not read():
            sys.exit(f"it ended without {word!r}: {seen}")
    last = at
    if typed.startswith("resize "):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size(*map(int, typed.split()[1:])))
    else:
        os.write(terminal, typed.encode())
while read():
    pass
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(seen.decode(errors="replace"))

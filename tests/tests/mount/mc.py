"""Starts Midnight Commander with two folders, presses F5, Enter, and F10 when the copy is done."""

import fcntl, json, os, pty, select, struct, sys, termios, time

left, right = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("mc", ["mc", "--nosubshell", "--nomouse", "--nocolor", left, right])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
screen = b""


def wait_for(what, done):
    """Reads the terminal until done(); everything drawn since is in screen."""
    global screen
    deadline = time.monotonic() + 20
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"mc: no {what}; the terminal shows {screen[-3000:]!r}")
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                screen += os.read(terminal, 65536)
            except OSError:
                # It closed the terminal; what is done may take a moment to show.
                time.sleep(0.05)


def press(keys, what, done):
    global screen
    screen = b""
    os.write(terminal, keys)
    wait_for(what, done)


def idle():
    return not select.select([terminal], [], [], 0.3)[0]


def transferred():
    """The mount has a result, and mc has drawn what it makes of it."""
    transfers = json.load(open(os.path.join(right, "../../.pcocc/status.json")))["transfers"]
    return transfers and transfers[-1]["state"] != "running" and idle()


wait_for("panels", lambda: b"Quit" in screen and idle())
# Escape and a digit is a function key. ".." is under the cursor at first.
press(b"\x1bOB", "cursor", idle)
press(b"\x1b5", "copy dialog", lambda: b"Copy" in screen and idle())
press(b"\r", "end of the copy", transferred)
if b"rror" in screen:
    sys.exit(f"mc: an error: {screen[-3000:]!r}")
press(b"\x1b0", "end of mc", lambda: os.waitpid(pid, os.WNOHANG) != (0, 0))

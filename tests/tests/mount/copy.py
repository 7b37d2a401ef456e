"""Copies a folder as Python programs do: copy.py copytree|copy2|rename FROM TO."""

import os, shutil, sys

how, source, target = sys.argv[1:]


def rename_into_place(file, folder):
    """As git-annex, and programs that write files atomically."""
    name = os.path.join(folder, os.path.basename(file))
    with open(file, "rb") as content, open(name + ".1a2b.tmp", "wb") as temporary:
        shutil.copyfileobj(content, temporary)
        temporary.flush()
        os.fsync(temporary.fileno())
    os.rename(temporary.name, name)


if how == "copytree":
    shutil.copytree(source, target)
else:
    one = {"copy2": shutil.copy2, "rename": rename_into_place}[how]
    for folder, _, files in os.walk(source):
        to = os.path.join(target, os.path.relpath(folder, source))
        os.makedirs(to, exist_ok=True)
        for file in files:
            one(os.path.join(folder, file), to)

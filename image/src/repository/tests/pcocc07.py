"""Writes and checks repositories in the format of pcocc 0.7, for the tests. Standard library only.

    write DIR VERSION    a new repository with two images, as pcocc 0.7 leaves it
    check DIR            fails unless pcocc 0.7 can read every image
    keys DIR REPO        name, revision and cache file of every image
"""

import hashlib
import json
import os
import sys


def put_blob(repo, content):
    name = hashlib.sha256(content).hexdigest()
    folder = os.path.join(repo, "data", name[:2])
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o444)
    return name


def container(repo):
    layer = b"layer content stands for a tar"
    layer_hex = put_blob(repo, layer)
    config = json.dumps({
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + layer_hex]},
    }).encode()
    config_hex = put_blob(repo, config)
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": "sha256:" + config_hex,
            "size": len(config),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": "sha256:" + layer_hex,
            "size": len(layer),
        }],
    }).encode()
    manifest_hex = put_blob(repo, manifest)
    index = {
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:" + manifest_hex,
            "size": len(manifest),
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
            # What pcocc 0.7 leaves behind by mistake.
            "path": "/tmp/tmpx/blobs/sha256/" + manifest_hex,
        }],
    }
    return {
        "name": "cont-busybox",
        "revision": 0,
        "kind": "ctr",
        "owner": "jos\u00e9",
        "timestamp": 1541000000.1234567,
        "data_blobs": ["sha256:" + h for h in (manifest_hex, layer_hex, config_hex)],
        "custom_meta": {"oci_index": index},
    }


def machine(repo):
    base = put_blob(repo, b"QFI\xfb base")
    top = put_blob(repo, b"QFI\xfb top")
    for revision, blobs in [(0, [base]), (1, [base, top])]:
        yield {
            "name": "vm-7.2",
            "revision": revision,
            "kind": "vm",
            "owner": "root",
            "timestamp": 1500000000.0 + revision,
            "data_blobs": blobs,
            "custom_meta": {},
        }


def yaml(value, indent=0):
    """The block style of yaml.safe_dump, as far as metadata needs it."""
    lines = []
    if isinstance(value, dict):
        for key in sorted(value):
            item = value[key]
            if isinstance(item, dict) and item:
                lines += [" " * indent + key + ":"] + yaml(item, indent + 2)
            elif isinstance(item, list):
                lines += [" " * indent + key + ":"] + yaml(item, indent)
            else:
                text = json.dumps(item) if not isinstance(item, str) or not item.isascii() else item
                lines.append(" " * indent + key + ": " + text)
    else:
        for item in value:
            if isinstance(item, dict):
                inner = yaml(item, indent + 2)
                lines.append(" " * indent + "- " + inner[0].lstrip())
                lines += inner[1:]
            else:
                lines.append(" " * indent + "- " + str(item))
    return lines


def write(repo, version):
    for folder in ("", "data", "meta", ".tmp"):
        os.mkdir(os.path.join(repo, folder))
    with open(os.path.join(repo, ".config"), "w") as file:
        file.write("{version: %d}\n" % version if version == 1 else "version: 2\n")
    for meta in [container(repo), *machine(repo)]:
        name, revision = meta["name"], meta["revision"]
        if version == 2:
            path = os.path.join(repo, "meta", "%s@%d" % (name, revision))
            text = json.dumps(meta)
        else:
            hashed = hashlib.sha256(("%s\n%d" % (name, revision)).encode()).hexdigest()
            os.makedirs(os.path.join(repo, "meta", hashed[:2]), exist_ok=True)
            path = os.path.join(repo, "meta", hashed[:2], hashed)
            text = "\n".join(yaml(meta)) + "\n"
        with open(path, "w") as file:
            file.write(text)


TYPES = {
    "name": str, "revision": int, "kind": str, "owner": str,
    "timestamp": (int, float), "data_blobs": list, "custom_meta": dict,
}
ORDER = list(TYPES)


def metas(repo):
    for file in sorted(os.listdir(os.path.join(repo, "meta"))):
        with open(os.path.join(repo, "meta", file)) as stream:
            yield file, stream.read()


def blob(repo, name):
    algorithm, _, name = name.rpartition(":")
    assert algorithm in ("", "sha256"), name
    path = os.path.join(repo, "data", name[:2], name)
    assert os.stat(path).st_mode & 0o777 == 0o444, path
    with open(path, "rb") as file:
        content = file.read()
    assert hashlib.sha256(content).hexdigest() == name, path
    return content


def check(repo):
    with open(os.path.join(repo, ".config")) as file:
        assert file.read() == "version: 2\n"
    for file, text in metas(repo):
        meta = json.loads(text)
        assert json.dumps(meta) == text, "other bytes than json.dump writes: " + text
        assert [k for k in meta if k != "description"] == ORDER, list(meta)
        for key, kind in TYPES.items():
            assert isinstance(meta[key], kind), key
        assert file == "%s@%d" % (meta["name"], meta["revision"]), file
        assert len(set(meta["data_blobs"])) == len(meta["data_blobs"])
        for name in meta["data_blobs"]:
            blob(repo, name)
        if meta["kind"] == "vm":
            assert all(":" not in name for name in meta["data_blobs"])
            continue
        for entry in meta["custom_meta"]["oci_index"]["manifests"]:
            assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
            reached = [entry["digest"]]
            manifest = json.loads(blob(repo, entry["digest"]))
            for layer in manifest["layers"]:
                assert layer["mediaType"].split(".")[-1] in ("tar", "tar+gzip")
                assert len(blob(repo, layer["digest"])) == layer["size"]
                reached.append(layer["digest"])
            json.loads(blob(repo, manifest["config"]["digest"]))
            reached.append(manifest["config"]["digest"])
            assert set(reached) <= set(meta["data_blobs"])


def keys(repo, name):
    for _, text in metas(repo):
        meta = json.loads(text)
        meta["repo"] = name
        key = hashlib.sha256((json.dumps(meta) + "\ncached_squashfs").encode()).hexdigest()
        print(meta["name"], meta["revision"], hashlib.sha512(key.encode()).hexdigest())


if __name__ == "__main__":
    command, repo, *rest = sys.argv[1:]
    if command == "write":
        write(repo, int(rest[0]))
    elif command == "check":
        check(repo)
    else:
        keys(repo, rest[0])

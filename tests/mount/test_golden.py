#!/usr/bin/env python3
"""Stores that earlier builds wrote (tests/golden) are opened by this one: every image, attribute, state and key is right,
what was replicating is finished, the check finds nothing, and the store can be written to. So is one made just now."""
import hashlib
import json
import os
import stat
import subprocess
import unittest
from pathlib import Path

from harness import MountedStore, REKEYFS, ROOT, attribute, attribute_or_none, needs_root, rekeyfs, run

GOLDEN = ROOT / "tests/golden"
MAKER = os.environ.get("REKEYFS_TEST_MAKE_GOLDEN") or str(Path(REKEYFS).resolve().parent.parent / "tests/rekeyfs_make_golden")
KINDS = {"directory": stat.S_ISDIR, "image": stat.S_ISREG, "symlink": stat.S_ISLNK}


@needs_root
class Golden(unittest.TestCase):
    def setUp(self):
        self.store = MountedStore()
        self.addCleanup(self.store.close)
        self.store.umount()
        self.mnt = self.store.mnt

    def verify(self, folder):
        """`folder` holds a store and its manifest."""
        manifest = json.loads((folder / "manifest.json").read_text())
        self.store.key_file.write_bytes(b"k" * 64)
        self.store.store = folder / "store"
        self.assertSound(manifest["nodes"])
        self.store.mount()
        self.verify_nodes(manifest["nodes"])
        for path in manifest["replicating"]:
            self.store.wait_normal(self.mnt / path)
            self.assertIsNotNone(attribute_or_none(self.mnt / path, "source"))
        self.verify_keys(manifest["keys"])
        self.verify_writing(manifest["nodes"])
        self.verify_nodes(manifest["nodes"])
        self.store.umount()
        self.assertSound(manifest["nodes"])

    def assertSound(self, nodes):
        done = rekeyfs("check", self.store.store, "--key-file", self.store.key_file, "--read-data", "--json", check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual((report["problems"], report["unverified"]), ([], []))
        self.assertEqual(report["images"], sum(facts["kind"] == "image" for facts in nodes.values()))

    def verify_nodes(self, nodes):
        found = {str(Path(folder, name).relative_to(self.mnt)) for folder, folders, files in os.walk(self.mnt) for name in folders + files}
        self.assertEqual(found | {""}, set(nodes))
        for name, facts in nodes.items():
            with self.subTest(node=name):
                self.verify_node(self.mnt / name, facts)

    def verify_node(self, path, facts):
        status = os.lstat(path)
        self.assertTrue(KINDS[facts["kind"]](status.st_mode))
        if facts["kind"] == "symlink":
            self.assertEqual(os.readlink(path), facts["target"])
            return
        self.assertEqual(status.st_mode & 0o7777, facts["permissions"])
        self.assertEqual(attribute(path, "encryption"), facts["encryption"])
        self.assertEqual(attribute_or_none(path, "key"), facts["key"])
        others = {key: os.getxattr(path, key).decode() for key in os.listxattr(path)}
        self.assertEqual(others, facts["attributes"])
        if facts["kind"] != "image":
            return
        self.assertEqual((status.st_size, attribute(path, "id")), (facts["size"], facts["id"]))
        self.assertEqual(hashlib.sha256(path.read_bytes()).hexdigest(), facts["sha256"])
        self.store.wait_normal(path)
        self.assertEqual(attribute(path, "digest"), facts["sha256"])
        boot = json.loads(rekeyfs("profile", "show", path, "--json").stdout)["profile"]
        self.assertEqual(boot and boot["bytes"], facts.get("boot"))

    def verify_keys(self, keys):
        listed = json.loads(rekeyfs("key", "list", self.mnt, "--json").stdout)
        found = {key["alias"]: {fact: key[fact] for fact in ("id", "version", "state")} for key in listed["keys"]}
        self.assertEqual(found, keys)

    def verify_writing(self, nodes):
        """An image is written over and put back; a clone of it is made and lives through a mount."""
        name, facts = next((name, facts) for name, facts in nodes.items() if facts["kind"] == "image" and facts["encryption"] == "kms")
        image = self.mnt / name
        content = image.read_bytes()
        with open(image, "r+b") as file:
            file.write(b"written by a later build")
            os.fsync(file.fileno())
        self.assertEqual(image.read_bytes()[:24], b"written by a later build")
        image.write_bytes(content)
        clone = image.parent / "new clone"
        run("cp", image, clone)
        self.store.remount()
        nodes[str(clone.relative_to(self.mnt))] = {**facts, "id": attribute(clone, "id"), "attributes": {}}

    def test_stores_of_earlier_builds(self):
        archives = sorted(GOLDEN.glob("*.tar.xz"))
        self.assertTrue(archives, "no golden store is kept")
        for archive in archives:
            with self.subTest(archive=archive.name):
                folder = self.store.scratch / archive.name
                folder.mkdir()
                run("tar", "--extract", "--file", archive, "--directory", folder)
                self.verify(folder)

    def test_a_store_made_now(self):
        folder = self.store.scratch / "made"
        self.assertEqual(subprocess.run([MAKER, folder], check=False).returncode, 0)
        self.verify(folder)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""No key ever meets a nonce twice: not within a mount, not after a kill, not when an old copy of a store is put back, not
when copies of one store are written in two places.

Every daemon runs under a spy (tests/preload/crypto_spy.cpp) that notes the key and the nonce of each sealing: blocks
(AES-256-GCM, and GMAC for plain images), catalog and journal records, wrapped keys. $REKEYFS_TEST_NONCE_ROUNDS says how often
the whole story is told; without it, once."""
import contextlib
import os
import random
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from harness import ROOT, MountedStore, rekeyfs, run
from images import KIB

SPY = os.environ.get("REKEYFS_TEST_CRYPTO_SPY") or str(ROOT / "build/release/tests/crypto_spy.so")
ROUNDS = int(os.environ.get("REKEYFS_TEST_NONCE_ROUNDS") or 1)
PAIR = 32 + 12


class Spied(MountedStore):
    """`log` gets the pairs. A copy of a store is mounted like any other: `store` is replaced."""

    def __init__(self, log):
        super().__init__(environment={"LD_PRELOAD": SPY, "REKEYFS_TEST_SPY_NONCES": str(log)})

    def put_back(self, copy):
        shutil.rmtree(self.store)
        shutil.copytree(copy, self.store)

    def keep(self, name):
        """A copy of the store as it is on disk now; the daemon is gone or dead."""
        copy = self.folder / name
        shutil.copytree(self.store, copy)
        return copy


class Nonces(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rekeyfs-nonces-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.log = self.folder / "pairs"

    def new_store(self):
        store = Spied(self.log)
        self.stores.callback(store.close)
        return store

    def make(self):
        store = self.new_store()
        store.encrypted("one", "tenant-one")
        store.encrypted("two", "tenant-two")
        store.plain("plain")
        return store

    def work(self, store, seed):
        """The same seed writes the same: what a store that was put back is likely to be asked for."""
        rng = random.Random(seed)
        for folder in ("one", "two", "plain"):
            path = store.mnt / folder / "image"
            with open(path, "r+b" if path.exists() else "w+b") as image:
                for _ in range(40):
                    image.seek(rng.randrange(128) * 16 * KIB)
                    image.write(rng.randbytes(rng.choice((100, 4 * KIB, 64 * KIB))))
                    image.flush()
                os.fsync(image.fileno())
        for number in range(20):
            (store.mnt / "one" / f"small-{seed}-{number}").write_bytes(b"x" * 1000)
        run("cp", "--force", store.mnt / "one/image", store.mnt / "two" / f"replica-{seed}")
        run("cp", "--force", store.mnt / "one/image", store.mnt / "one" / f"clone-{seed}")
        with open(store.mnt / "one" / f"clone-{seed}", "r+b") as clone:
            clone.write(b"changed")
        rekeyfs("key", "rotate", "tenant-one", store.mnt)

    def tell(self, seed):
        store = self.make()
        self.work(store, seed)
        store.kill9()  # in the middle of a replication, checkpoints and all
        killed = store.keep("killed")
        store.mount()
        self.work(store, seed + 1)
        store.umount()
        old = store.keep("old")
        store.mount()
        self.work(store, seed + 2)
        store.kill9()
        for copy in (old, killed, old):  # an old state, put back, goes on as if the newer had never been
            store.put_back(copy)
            store.mount()
            self.work(store, seed + 2)
            store.kill9()
        self.both(store, seed)

    def both(self, store, seed):
        """Two copies of one store are mounted and written at the same time."""
        twin = self.new_store()
        twin.umount()
        twin.put_back(store.store)
        shutil.copy(store.key_file, twin.key_file)
        store.mount()
        twin.mount()
        for step in (3, 4):
            for one in (store, twin):
                self.work(one, seed + step)
        for one in (store, twin):
            one.umount()

    def test_no_pair_twice(self):
        for number in range(ROUNDS):
            with contextlib.ExitStack() as self.stores:
                self.tell(10 * number)
        pairs = self.log.read_bytes()
        self.assertEqual(len(pairs) % PAIR, 0)
        seen, keys = set(), set()
        for at in range(0, len(pairs), PAIR):
            pair = pairs[at:at + PAIR]
            self.assertNotIn(pair, seen, f"sealing number {at // PAIR} has a key and a nonce that were used before")
            seen.add(pair)
            keys.add(pair[:32])
        print(f"{len(seen)} pairs under {len(keys)} keys, none twice", file=sys.stderr)
        self.assertGreater(len(seen), 5000 * ROUNDS)
        self.assertGreater(len(keys), 50)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""`rekeyfs replicate`: a copy with everything said explicitly, what it refuses, and what it would do."""
import errno
import json
import os
import stat
import subprocess
import sys
import unittest

from harness import NOBODY, MountedStore, TestCase, attribute, needs_root, rekeyfs, run
from images import MIB

WRITER = """import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.write(fd, b"x" * 262144)
print("written", flush=True)
sys.stdin.read()
"""


class Replicate(TestCase):
    mount_arguments = ("-o", "allow_other") if os.geteuid() == 0 else ()

    def setUp(self):
        super().setUp()
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        self.plain = self.store.plain("plain")
        self.one = self.store.encrypted("one", "key-one")
        self.store.key("key-two")
        self.source = self.store.original("original", 9 * MIB)
        self.image = self.plain / "image"
        run("cp", self.source, self.image)
        self.image.chmod(0o644)

    def facts(self, *arguments, **options):
        return json.loads(rekeyfs("replicate", "--json", *arguments, **options).stdout)

    def dry(self, *arguments, **options):
        return self.facts("--dry-run", *arguments, **options)

    def key(self, path):
        return attribute(path, "key") if attribute(path, "encryption") == "kms" else None

    def mode(self, path):
        return stat.S_IMODE(os.stat(path).st_mode)

    def log(self):
        return [json.loads(line) for line in rekeyfs("log", "--json", self.mnt).stdout.splitlines()]

    def assertMade(self, path, key, mode):
        self.assertSame(self.source, path)
        self.assertEqual((self.key(path), self.mode(path)), (key, mode))
        self.store.wait_normal(path)
        self.store.remount()
        self.assertSame(self.source, path)
        self.assertEqual((self.key(path), self.mode(path)), (key, mode))

    def test_by_policy(self):
        done = rekeyfs("replicate", self.image, self.one)
        self.assertIn(f"replicating {self.image} to {self.one / 'image'} (plain -> key-one, 9.0 MiB)", done.stdout)
        self.assertMade(self.one / "image", "key-one", 0o600)

    def test_another_key_than_the_directorys(self):
        rekeyfs("replicate", "--key", "key-two", self.image, self.one / "new")
        self.assertMade(self.one / "new", "key-two", 0o600)

    def test_a_key_in_a_plain_directory(self):
        rekeyfs("replicate", "--key", "key-two", self.image, self.plain / "new")
        self.assertMade(self.plain / "new", "key-two", 0o600)

    def test_the_kernel_sees_the_permissions_of_an_encrypted_copy_at_once(self):
        rekeyfs("replicate", "--key", "key-two", self.image, self.plain / "new")
        self.assertEqual(self.mode(self.plain / "new"), 0o600)

    def test_plain_in_a_directory_with_a_key(self):
        rekeyfs("replicate", "--plain", self.image, self.one / "new")
        self.assertMade(self.one / "new", None, 0o644)
        done = rekeyfs("replicate", "--key", "key-two", "--plain", self.image, self.one / "other", check=False)
        self.assertEqual((done.returncode, (self.one / "other").exists()), (2, False))

    def test_from_encrypted_to_plain(self):
        rekeyfs("replicate", "--wait", self.image, self.one)
        rekeyfs("replicate", "--plain", self.one / "image", self.plain / "back")
        self.assertMade(self.plain / "back", None, 0o600)

    def test_a_clone(self):
        done = rekeyfs("replicate", self.image, self.plain / "clone")
        self.assertIn(f"cloned {self.image} to {self.plain / 'clone'} (plain, as the source, 9.0 MiB)", done.stdout)
        self.assertSame(self.source, self.plain / "clone")

    def test_relative_and_linked_paths(self):
        (self.plain / "link").symlink_to("image")
        rekeyfs("replicate", "plain/link", "one", cwd=self.mnt)
        rekeyfs("replicate", "image", "other", cwd=self.plain)
        self.assertSame(self.source, self.one / "link")
        self.assertTrue((self.one / "link").is_file() and not (self.one / "link").is_symlink())
        self.assertSame(self.source, self.plain / "other")

    def test_an_empty_image(self):
        (self.plain / "empty").touch()
        rekeyfs("replicate", self.plain / "empty", self.one)
        self.assertEqual((self.key(self.one / "empty"), os.stat(self.one / "empty").st_size), ("key-one", 0))
        # Nothing but the choice tells the kernel of the permissions here.
        rekeyfs("replicate", "--key", "key-two", self.plain / "empty", self.plain / "new")
        self.assertEqual((self.key(self.plain / "new"), self.mode(self.plain / "new")), ("key-two", 0o600))

    def test_description(self):
        rekeyfs("replicate", "--description", "the günstige one", self.image, self.one)
        self.assertEqual(os.getxattr(self.one / "image", "user.xdg.comment").decode(), "the günstige one")
        too_long = "x" * 70_000
        done = rekeyfs("replicate", "--description", too_long, self.image, self.one / "other", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse((self.one / "other").exists())

    def test_wait(self):
        facts = self.facts("--wait", self.image, self.one)
        self.assertEqual((facts["status"], self.store.status(self.one / "image")), ("normal", "normal"))
        self.assertEqual((facts["source"], facts["target"]), (str(self.image), str(self.one / "image")))
        self.assertEqual((facts["transforms"], facts["key_before"], facts["key_after"]), (True, "", "key-one"))
        self.assertIn(f"{self.one / 'again'} is normal", rekeyfs("replicate", "--wait", self.image, self.one / "again").stdout)

    def test_the_status_is_told(self):
        self.assertIn(self.facts(self.image, self.one)["status"], ("replicating", "normal"))
        self.assertIn(self.facts(self.image, self.plain / "clone")["status"], ("normal-uninitialized", "normal"))

    def test_what_exists_stays(self):
        (self.one / "image").write_bytes(b"kept")
        for extra in ((), ("--dry-run",)):
            done = rekeyfs("replicate", *extra, self.image, self.one, check=False)
            self.assertEqual(done.returncode, 15, done.stderr)
        self.assertEqual((self.one / "image").read_bytes(), b"kept")
        (self.plain / "dangling").symlink_to("nowhere")
        self.assertEqual(rekeyfs("replicate", self.image, self.plain / "dangling", check=False).returncode, 15)
        os.setxattr(self.one / "image", "user.rekeyfs.protected", b"1")
        facts = self.dry(self.image, self.one, check=False)
        self.assertEqual([refusal["errno"] for refusal in facts["refusals"]], ["EEXIST", "EPERM"])

    def test_places_that_are_none(self):
        outside = self.store.scratch / "new"
        for arguments, code in (((self.source, self.one), 13), ((self.image, outside), 2), ((self.image, self.mnt / "no/new"), 14),
                                ((self.plain / "none", self.one), 14), ((self.plain, self.one), 2),
                                ((self.image, f"{self.one}/new/"), 14)):
            done = rekeyfs("replicate", *arguments, check=False)
            self.assertEqual(done.returncode, code, f"{arguments}: {done.stderr}")
        self.assertFalse(outside.exists())
        self.assertEqual(os.listdir(self.one), [])

    def assertRefused(self, code, number, words, *arguments):
        """The whole reason is printed, no target stays, it is logged; and the dry run says the same and does nothing."""
        before, names = self.log(), os.listdir(self.one)
        dry = rekeyfs("replicate", "--dry-run", "--json", *arguments, self.one / "target", check=False)
        facts = json.loads(dry.stdout)
        self.assertEqual((dry.returncode, facts["refusals"][0]["errno"]), (code, errno.errorcode[number]))
        self.assertRegex(facts["refusals"][0]["message"], words)
        shown = rekeyfs("replicate", "--dry-run", *arguments, self.one / "target", check=False)
        self.assertRegex(shown.stdout, f"refused +{errno.errorcode[number]}: .*{words}")
        self.assertEqual((self.log(), os.listdir(self.one)), (before, names))
        done = rekeyfs("replicate", *arguments, self.one / "target", check=False)
        self.assertEqual(done.returncode, code)
        self.assertRegex(done.stderr, words)
        self.assertEqual(os.listdir(self.one), names)
        event = self.log()[-1]
        self.assertEqual((event["kind"], event["path"]), ("refused", "/one/target"))
        self.assertRegex(event["text"], words)

    def test_a_full_ecs_image(self):
        os.setxattr(self.image, "user.rekeyfs.type", b"full-ecs")
        self.assertRefused(18, errno.EMEDIUMTYPE, "a full-ECS image cannot be replicated", self.image)

    def test_a_key_that_is_not_there(self):
        self.assertRefused(10, errno.ENOKEY, "none-such", "--key", "none-such", self.image)

    def test_an_image_that_is_being_created(self):
        path = self.plain / "creating"
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(writer.communicate)
        self.assertEqual(writer.stdout.readline(), b"written\n")
        self.assertRefused(8, errno.EBUSY, "this one is in state creating", path)

    def test_dry_run(self):
        before = self.log()
        facts = self.dry(self.image, self.one)
        self.assertEqual((facts["transforms"], facts["key_before"], facts["key_after"], facts["size"]), (True, "", "key-one", 9 * MIB))
        self.assertTrue(0 < facts["bytes_to_transform"] < 9 * MIB, "its holes are not transformed")
        self.assertEqual((facts["space_needed"], facts["rate_from"], facts["refusals"]), (facts["bytes_to_transform"], "measured", []))
        self.assertAlmostEqual(facts["seconds"], facts["bytes_to_transform"] / facts["bytes_per_second"])
        self.assertIn("measured now", rekeyfs("replicate", "--dry-run", self.image, self.one).stdout)
        clone = self.dry(self.image, self.plain / "new")
        self.assertEqual((clone["transforms"], clone["space_needed"], clone["seconds"]), (False, 0, None))
        self.assertEqual(self.dry("--key", "key-two", self.image, self.one)["key_after"], "key-two")
        self.assertEqual((os.listdir(self.one), os.listdir(self.plain), self.log()), ([], ["image"], before))

    def test_the_time_is_that_of_recent_replications(self):
        rekeyfs("replicate", "--wait", self.image, self.one)
        completed = self.log()[-1]
        facts = self.dry(self.image, self.one / "other")
        self.assertEqual(facts["rate_from"], "recent")
        self.assertAlmostEqual(facts["bytes_per_second"], completed["bytes"] / completed["seconds"], delta=1)
        self.assertEqual(completed["bytes"], facts["bytes_to_transform"])
        self.assertIn("latest replications", rekeyfs("replicate", "--dry-run", self.image, self.one / "other").stdout)

    def test_into_another_mount(self):
        other = MountedStore()
        self.addCleanup(other.close)
        self.assertEqual(rekeyfs("replicate", self.image, other.mnt, check=False).returncode, 2)

    @needs_root
    def test_another_user(self):
        """The kernel checks, and the copy is his."""
        self.image.chmod(0o600)
        for extra in ((), ("--dry-run",)):
            self.assertEqual(rekeyfs("replicate", *extra, self.image, self.plain / "new", uid=NOBODY, check=False).returncode, 16)
        self.image.chmod(0o644)
        for extra in ((), ("--dry-run",)):
            self.assertEqual(rekeyfs("replicate", *extra, self.image, self.plain / "new", uid=NOBODY, check=False).returncode, 16)
        self.plain.chmod(0o733)  # may make files, and not look
        rekeyfs("replicate", "--plain", "--description", "mine", self.image, self.plain / "new", uid=NOBODY)
        facts = os.stat(self.plain / "new")
        self.assertEqual((facts.st_uid, stat.S_IMODE(facts.st_mode)), (NOBODY, 0o644))
        self.assertSame(self.source, self.plain / "new")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""`rekeyfs log`: who did what, on a mounted and on an unmounted store, and who may see it."""
import json
import os
import signal
import subprocess
import sys
import unittest

from harness import NOBODY, REKEYFS, TestCase, needs_root, rekeyfs, run


# Makes files that may not be made: one many times, and as many others.
MAKE_OFTEN = """import os, sys
for i in range(int(sys.argv[2])):
    for name in ("image", f"image-{i}"):
        try:
            os.close(os.open(os.path.join(sys.argv[1], name), os.O_CREAT | os.O_WRONLY))
        except PermissionError:
            pass
"""


class Log(TestCase):
    mount_arguments = ("-o", "allow_other") if os.geteuid() == 0 else ()

    def setUp(self):
        super().setUp()
        self.plain = self.store.plain("plain")
        self.tenant = self.store.encrypted("tenant", "tenant-key")

    def log(self, *arguments, path=None, **options):
        lines = rekeyfs("log", "--json", *arguments, path or self.mnt, **options).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def provoke(self):
        """A replication, and a copy that is refused."""
        (self.plain / "image").write_bytes(b"x" * 300_000)
        run("cp", self.plain / "image", self.tenant / "copy")
        self.store.wait_normal(self.tenant / "copy")
        os.setxattr(self.plain / "image", "user.rekeyfs.type", b"full-ecs")
        run("cp", self.plain / "image", self.tenant / "refused", check=False)

    def test_facts(self):
        self.provoke()
        key, policy, asked, completed, typed, refused = self.log()
        self.assertEqual((policy["kind"], policy["path"], policy["key"]), ("policy-changed", "/tenant", "tenant-key"))
        self.assertEqual((typed["kind"], typed["path"]), ("policy-changed", "/plain/image"))
        self.assertEqual((key["kind"], key["key"], key["uid"]), ("key-created", "tenant-key", os.geteuid()))
        self.assertEqual((asked["kind"], asked["source"], asked["path"], asked["key_before_id"], asked["key"], asked["key_id"]),
                         ("replication-asked", "/plain/image", "/tenant/copy", "", "tenant-key", key["key_id"]))
        self.assertEqual((completed["kind"], completed["path"], completed["uid"]),
                         ("replication-completed", "/tenant/copy", os.geteuid()))
        self.assertGreaterEqual(completed["bytes"], 300_000)
        self.assertGreater(completed["seconds"], 0)
        self.assertEqual((refused["kind"], refused["path"], refused["code"]), ("refused", "/tenant/refused", "wrong medium type"))
        self.assertIn("full-ECS", refused["text"])
        self.assertEqual([event["kind"] for event in self.log("-n", 1)], ["refused"])

    def test_policies(self):
        self.store.key("other-key")
        os.setxattr(self.tenant, "user.rekeyfs.key", b"other-key")
        os.setxattr(self.tenant, "user.rekeyfs.key", b"other-key")  # changes nothing
        os.removexattr(self.tenant, "user.rekeyfs.key")
        (self.plain / "image").write_bytes(b"x")
        os.setxattr(self.plain / "image", "user.rekeyfs.protected", b"1")
        events = [event for event in self.log() if event["kind"] == "policy-changed"]
        self.assertEqual([(event["path"], event["key_before"], event["key"], event["text"]) for event in events],
                         [("/tenant", "", "tenant-key", "user.rekeyfs.key set to tenant-key"),
                          ("/tenant", "tenant-key", "other-key", "user.rekeyfs.key set to other-key, it was tenant-key"),
                          ("/tenant", "other-key", "", "user.rekeyfs.key removed, it was other-key"),
                          ("/plain/image", "", "", "user.rekeyfs.protected set to 1")])
        self.assertEqual({event["uid"] for event in events}, {os.geteuid()})

    def test_lines(self):
        self.provoke()
        lines = rekeyfs("log", self.mnt, env={**os.environ, "TZ": "XXX-5:30"}).stdout.splitlines()
        user = run("id", "-un").stdout.strip()
        self.assertIn(f"  {user}  created the key tenant-key", lines[0])
        self.assertIn(f"  {user}  changed /tenant: user.rekeyfs.key set to tenant-key", lines[1])
        self.assertIn(f"  {user}  replicated /plain/image to /tenant/copy (plain -> tenant-key)", lines[2])
        self.assertIn("  completed /tenant/copy: ", lines[3])
        self.assertIn("  refused /plain/image to /tenant/refused: a full-ECS image", lines[5])
        utc = rekeyfs("log", self.mnt, env={**os.environ, "TZ": "UTC"}).stdout.splitlines()
        self.assertEqual((int(lines[0][14:16]) - int(utc[0][14:16])) % 60, 30)
        self.assertEqual(utc[0][:10] + "T" + utc[0][11:19], self.log()[0]["time"][:19])

    def test_a_name_cannot_command_the_terminal(self):
        (self.plain / "a\x1b[31m\nb").write_bytes(b"x" * 20_000)
        run("cp", self.plain / "a\x1b[31m\nb", self.tenant / "copy")
        lines = rekeyfs("log", self.mnt).stdout.splitlines()
        self.assertIn("replicated /plain/a?[31m?b to", lines[2])

    def test_status_shows_refusals_after_a_remount(self):
        self.provoke()
        before = self.log()
        self.store.remount()
        self.assertEqual(self.log(), before)
        refusals = json.loads(rekeyfs("status", "--json", self.tenant).stdout)["refusals"]
        self.assertEqual([refusal["path"] for refusal in refusals], ["/tenant/refused"])

    def test_an_unmounted_store(self):
        self.provoke()
        before = self.log()
        self.store.umount()
        self.assertEqual(self.log("--key-file", self.store.key_file, path=self.store.store), before)
        self.store.mount()

    def test_after_a_kill(self):
        self.provoke()
        before = self.log()
        self.store.kill9()
        self.store.mount()
        self.assertEqual(self.log(), before)

    def test_follow(self):
        follower = subprocess.Popen([REKEYFS, "log", "--follow", "--json", "-n", "1", self.mnt], stdout=subprocess.PIPE, text=True)
        self.addCleanup(follower.stdout.close)
        self.assertEqual(json.loads(follower.stdout.readline())["key"], "tenant-key")
        for alias in ("one", "two"):
            self.store.key(alias)
        self.assertEqual([json.loads(follower.stdout.readline())["key"] for _ in range(2)], ["one", "two"])
        follower.send_signal(signal.SIGINT)
        self.assertEqual(follower.wait(timeout=30), -signal.SIGINT)

    def test_wrong_numbers(self):
        for number in ("0", "25001", "x"):
            self.assertEqual(rekeyfs("log", "-n", number, self.mnt, check=False).returncode, 2, number)
        self.assertEqual(rekeyfs("log", self.store.scratch, check=False).returncode, 13)

    def follow(self, *arguments):
        follower = subprocess.Popen([REKEYFS, "log", "--follow", "--json", *arguments, self.mnt], stdout=subprocess.PIPE, text=True)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.terminate)
        return follower

    def test_a_collector_goes_on_where_it_was(self):
        self.provoke()
        before = self.log()
        seen = before[2]["number"]
        self.assertEqual(self.log("--after", str(seen)), before[3:])
        follower = self.follow("--after", str(seen))
        self.assertEqual([json.loads(follower.stdout.readline()) for _ in before[3:]], before[3:])
        self.store.key("later")
        event = json.loads(follower.stdout.readline())
        self.assertEqual((event["key"], event["number"]), ("later", before[-1]["number"] + 1))
        self.assertEqual(rekeyfs("log", "--after", "1", "-n", "5", self.mnt, check=False).returncode, 2)

    def test_a_long_log_comes_in_pages(self):
        folder = self.plain / ("x" * 250) / ("y" * 250) / ("z" * 250)
        folder.mkdir(parents=True)
        for i in range(700):
            os.setxattr(folder, "user.rekeyfs.type", (b"data-disk", b"system-disk")[i % 2])
        events = [event for event in self.log("-n", "600")]
        self.assertEqual(len(events), 600)
        numbers = [event["number"] for event in events]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + 600)))
        self.assertEqual(self.log("--after", str(numbers[0])), events[1:])

    def test_verify(self):
        self.provoke()
        last = self.log()[-1]["number"]
        for path, options in ((self.mnt, ()), (self.store.store, ("--key-file", self.store.key_file))):
            if path == self.store.store:
                self.store.umount()
            told = rekeyfs("log", "--verify", *options, path).stdout
            self.assertIn(f"the log has {last} of the events 1 to {last}, in its chain, unchanged and complete", told)
            facts = json.loads(rekeyfs("log", "--verify", "--json", *options, path).stdout)
            self.assertEqual((facts["first"], facts["last"], facts["unverified"], facts["problems"]), (1, last, 0, []))
        self.store.mount()

    @needs_root
    def test_verify_is_for_operators(self):
        done = rekeyfs("log", "--verify", self.mnt, uid=NOBODY, check=False)
        self.assertEqual(done.returncode, 16, done.stderr)

    @needs_root
    def test_a_flood_of_refusals_leaves_the_log_as_it_was(self):
        self.tenant.chmod(0o777)
        before, lines = self.log(), len(self.store.log().splitlines())
        run(sys.executable, "-c", MAKE_OFTEN, self.tenant, "5000", uid=NOBODY)
        after = self.log()
        self.assertEqual(after[:len(before)], before)
        refused = after[len(before):]
        self.assertEqual((refused[0]["kind"], refused[0]["path"], refused[0]["uid"], refused[0]["count"], refused[0]["code"]),
                         ("refused", "/tenant/image", NOBODY, 1, "permission denied"))
        self.assertLessEqual(len(refused), 60)
        self.assertLess(len(self.store.log().splitlines()) - lines, 60)
        self.store.remount()
        refused = self.log("-n", "200")[len(before):]
        self.assertEqual(sum(event["count"] for event in refused), 10_000)
        self.assertLessEqual(len(refused), 100)
        self.assertRegex(rekeyfs("log", self.mnt).stdout, r"refused /tenant/image: .* \([0-9]+ times since ")

    @needs_root
    def test_orders_that_are_refused(self):
        self.plain.chmod(0o777)
        self.assertEqual(rekeyfs("key", "disable", "tenant-key", self.mnt, uid=NOBODY, check=False).returncode, 16)
        run("setfattr", "-n", "user.rekeyfs.type", "-v", "data-disk", self.plain, uid=NOBODY, check=False)
        key, policy = self.log("-n", "2")
        self.assertEqual((key["kind"], key["key"], key["path"], key["uid"], key["code"]),
                         ("refused", "tenant-key", "", NOBODY, "permission denied"))
        self.assertEqual((policy["kind"], policy["path"], policy["uid"]), ("refused", "/plain", NOBODY))
        lines = rekeyfs("log", "-n", "2", self.mnt).stdout.splitlines()
        self.assertIn("  refused an order about the key tenant-key: there is no key", lines[0])

    def test_a_name_forges_no_line_of_the_daemons_log(self):
        name = "x\n2026-01-01T00:00:00.000+0000 info mounted forged\x1b[2J"
        (self.plain / name).write_bytes(b"x" * 20_000)
        os.setxattr(self.plain / name, "user.rekeyfs.type", b"full-ecs")
        run("cp", self.plain / name, self.tenant / "copy", check=False)
        log = self.store.log()
        self.assertIn("x\\n2026-01-01T00:00:00.000+0000 info mounted forged\\x1b[2J", log)
        self.assertFalse([line for line in log.splitlines() if line.startswith("2026-01-01")])

    @needs_root
    def test_others_see_what_they_did(self):
        self.provoke()
        self.plain.chmod(0o777)
        run("sh", "-c", 'echo x >"$1/mine"; cp "$1/mine" "$1/copy"', "sh", self.plain, uid=NOBODY)
        seen = self.log(uid=NOBODY)
        self.assertEqual([(event["kind"], event["path"], event["uid"]) for event in seen], [("cloned", "/plain/copy", NOBODY)])
        self.assertEqual(len(self.log()), 7)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Who may ask for what: the table of authority of rekeyfs-security(7), cell by cell, and stories of tenants who distrust
each other.

A command is given by an operator, by the tenant whom the image and the key belong to, and by another tenant: through the
mount, and in a mount namespace in which only a bind mount of a public directory is left of it, where `operator` is user
0 without a capability.
"""
import json
import os
import re
import unittest

from harness import REKEYFS, ROOT, TestCase, attribute, needs_root, rekeyfs, run
from images import MIB

OWNER, OTHER = 64001, 64002
DENIED, NO_KEY, PARTIAL = 16, 10, 21
USERS = {"operator": 0, "owner": OWNER, "other": OTHER}
DOORS = ("mount", "bind")
# In which a command is served: with all that there is, with what the sender may know, or not at all.
ALL, OWN, NO = "all", "own", "no"


class Tenants(TestCase):
    """mnt/public/a is the directory, closed to others, of the tenant OWNER, with his key and his image `disk`."""
    mount_arguments = ("-o", "allow_other,user_keys=1000")

    def setUp(self):
        super().setUp()
        self.public = self.store.plain("public")
        self.public.chmod(0o777)
        self.store.key("a")
        rekeyfs("key", "grant", "a", OWNER, self.mnt)
        self.folder = self.public / "a"
        self.folder.mkdir()
        os.setxattr(self.folder, "user.rekeyfs.key", b"a")
        os.chown(self.folder, OWNER, OWNER)
        self.folder.chmod(0o700)
        self.disk = self.folder / "disk"
        run("cp", self.store.original("original", MIB), self.disk, uid=OWNER)
        self.store.wait_normal(self.disk)
        os.setxattr(self.disk, "user.secret", b"told to readers only")
        self.box = self.store.scratch / "box"
        self.box.mkdir()

    def given(self, user, door, *arguments):
        """`rekeyfs` of that user: paths below the mount, or below the bind mount of its directory `public`."""
        return self.as_user(user, door, REKEYFS, *arguments)

    def as_user(self, user, door, *command):
        uid, command = USERS[user], [self.through(door, part) for part in command]
        if door == "mount":
            return run(*command, uid=None if uid == 0 else uid, check=False)
        drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"]
        script = 'mount --bind "$1" "$2" && umount -l "$3" && shift 3 && exec "$@"'
        return run("unshare", "-m", "sh", "-c", script, "sh", self.public, self.box, self.mnt, *drop, *command, check=False)

    def through(self, door, argument):
        if not isinstance(argument, os.PathLike) or door == "mount":
            return argument
        return self.box if argument == self.mnt else self.box / argument.relative_to(self.public)


def table_of_the_manual():
    """{row: {(door, user): answer}} as rekeyfs-security(7) prints it."""
    page = (ROOT / "man/rekeyfs-security.7").read_text()
    section = page[page.index(".Sh AUTHORITY"):]
    lines = re.search(r"\.Bd -literal\n(.*?)\.Ed", section, re.S).group(1).splitlines()
    columns = [(door, user) for door in DOORS for user in USERS]
    table = {}
    for line in lines[2:]:
        name, *answers = re.split(r"\s{2,}", line.strip())
        table[name] = dict(zip(columns, answers, strict=True))
    return table


@needs_root
class Table(Tenants):
    """Each method `row_<command>` gives the command in one cell of the table and says how it was answered."""
    numbers = iter(range(10_000))

    def key_of_the_owner(self, *prepared):
        """A new key that OWNER owns, as the manual's column says."""
        alias = f"k{next(self.numbers)}"
        rekeyfs("key", "create", alias, self.mnt, uid=OWNER)
        for verb in prepared:
            rekeyfs("key", *verb.split(), alias, *(["--force"] if verb in ("disable", "delete") else []), self.mnt)
        return alias

    @staticmethod
    def served(done):
        return ALL if done.returncode == 0 else NO

    def facts(self, done):
        return json.loads(done.stdout) if done.returncode == 0 else None

    # What is shown.

    def row_status_of_the_top(self, user, door):
        """Refusals are the trace: one of each tenant's."""
        for uid in OWNER, OTHER:
            run("sh", "-c", 'cp "$1" "$2"', "sh", self.forbidden, self.public / f"refused-{uid}", uid=uid, check=False)
        done = self.given(user, door, "status", self.mnt, "--json")
        seen = {refusal["uid"] for refusal in json.loads(done.stdout)["refusals"]}
        return ALL if seen >= {OWNER, OTHER} else OWN if seen <= {USERS[user]} else f"{seen}"

    def row_status_of_the_image(self, user, door):
        return self.served(self.given(user, door, "status", self.disk))

    def row_info_of_the_image(self, user, door):
        facts = self.facts(self.given(user, door, "info", self.disk, "--json"))
        return NO if facts is None else ALL if facts["user_attributes"].get("user.secret") else OWN

    def row_info_of_a_public_image(self, user, door):
        image = self.public / "unreadable"
        if not image.exists():
            image.write_bytes(b"x")
            os.setxattr(image, "user.secret", b"told to readers only")
            os.chown(image, OWNER, OWNER)
            image.chmod(0o600)
        facts = self.facts(self.given(user, door, "info", image, "--json"))
        return NO if facts is None else OWN if facts["attributes"] is None and facts["layers"] is None else ALL

    def row_log(self, user, door):
        events = [json.loads(line) for line in self.given(user, door, "log", self.mnt, "--json", "-n", "10000").stdout.splitlines()]
        seen = {event["uid"] for event in events}
        return ALL if seen >= {0, OWNER} else OWN if seen <= {USERS[user]} else f"{seen}"

    def row_key_list(self, user, door):
        mine = self.key_of_the_owner()
        done = self.given(user, door, "key", "list", self.mnt, "--json")
        if done.returncode:
            return NO
        seen = {key["alias"] for key in json.loads(done.stdout)["keys"]}
        return ALL if {"a", "unrelated", mine} <= seen else OWN if "unrelated" not in seen else f"{seen}"

    def row_key_show(self, user, door):
        return self.served(self.given(user, door, "key", "show", self.key_of_the_owner(), self.mnt))

    # What is changed.

    def row_key_create(self, user, door):
        return self.served(self.given(user, door, "key", "create", f"k{next(self.numbers)}", self.mnt))

    def verb(self, user, door, verb, *more, prepared=()):
        return self.served(self.given(user, door, "key", verb, self.key_of_the_owner(*prepared), *more, self.mnt))

    def row_key_rotate(self, user, door):
        return self.verb(user, door, "rotate")

    def row_key_disable(self, user, door):
        return self.verb(user, door, "disable", "--force")

    def row_key_enable(self, user, door):
        return self.verb(user, door, "enable", prepared=("disable",))

    def row_key_delete(self, user, door):
        return self.verb(user, door, "delete")

    def row_key_delete_at_once(self, user, door):
        return self.verb(user, door, "delete", "--after", "0s", "--force")

    def row_key_cancel_deletion(self, user, door):
        return self.verb(user, door, "cancel-deletion", prepared=("delete",))

    def row_key_grant(self, user, door):
        return self.verb(user, door, "grant", OTHER + 1)

    def row_key_revoke(self, user, door):
        alias = self.key_of_the_owner()
        rekeyfs("key", "grant", alias, OTHER + 1, self.mnt)
        return self.served(self.given(user, door, "key", "revoke", alias, OTHER + 1, self.mnt))

    def row_rotate_the_directory(self, user, door):
        return self.served(self.given(user, door, "rotate", self.folder, "--key", "a"))

    def row_clear_the_boot_profile(self, user, door):
        done = self.given(user, door, "profile", "clear", self.disk)
        return ALL if "has no boot profile" in done.stderr else NO

    def row_replicate(self, user, door):
        return self.served(self.given(user, door, "replicate", "--dry-run", self.disk, self.folder / "other"))

    def row_umount(self, user, door):
        """The part of it that the daemon decides; only who gets that far is told that there is a process to wait for."""
        done = self.given(user, door, "umount", self.mnt) if user != "operator" or door == "bind" else None
        return ALL if done is None or done.returncode == 0 else NO

    def row_set_encrypted_only(self, user, door):
        return self.set_attribute(user, door, "user.rekeyfs.encrypted_only", "1")

    def row_set_a_quota(self, user, door):
        return self.set_attribute(user, door, "user.rekeyfs.quota", "bytes=1T")

    def row_set_the_key_of_the_directory(self, user, door):
        return self.set_attribute(user, door, "user.rekeyfs.key", "a")

    def set_attribute(self, user, door, name, value):
        """Of a directory of his own or, for another tenant, of one that he may write to."""
        path = self.folder if user == "owner" else self.public
        before = run("getfattr", "--only-values", "-n", name, path, check=False)
        done = self.as_user(user, door, "setfattr", "-n", name, "-v", value, path)
        if done.returncode == 0 and before.returncode == 0:
            os.setxattr(path, name, before.stdout.encode())
        elif done.returncode == 0:
            os.removexattr(path, name)
        return self.served(done)

    def test_every_cell(self):
        self.store.key("unrelated")
        self.forbidden = self.public / "full-ecs"
        self.forbidden.write_bytes(b"x" * 4096)
        self.forbidden.chmod(0o644)
        os.setxattr(self.forbidden, "user.rekeyfs.type", b"full-ecs")
        self.store.wait_normal(self.forbidden)
        table = table_of_the_manual()
        rows = {name[len("row_"):].replace("_", " "): getattr(self, name) for name in dir(self) if name.startswith("row_")}
        self.assertEqual(set(table), set(rows), "the manual's rows and the test's")
        for name, answers in table.items():
            for (door, user), expected in answers.items():
                with self.subTest(row=name, door=door, user=user):
                    self.assertEqual(rows[name](user, door), expected)


@needs_root
class Stories(Tenants):
    """What worked once, and must not."""

    def test_container_root_deletes_no_key(self):
        done = self.given("operator", "bind", "key", "delete", "a", "--after", "0s", "--force", self.mnt)
        self.assertEqual(done.returncode, DENIED, done)
        self.assertIn("root directory of the mount", done.stderr)
        events = [json.loads(line) for line in rekeyfs("log", self.mnt, "--json").stdout.splitlines()]
        self.assertIn(("refused", "a", 0), [(event["kind"], event["key"], event["uid"]) for event in events])
        self.assertEqual(json.loads(rekeyfs("key", "show", "a", self.mnt, "--json").stdout)["state"], "enabled")

    def test_names_in_a_closed_directory_are_not_told(self):
        """Whether they exist or not: the same words."""
        for command in (["status"], ["info"], ["profile", "show"]):
            told = {name: self.given("other", "mount", *command, self.folder / name) for name in ("disk", "none")}
            for name, done in told.items():
                self.assertEqual(done.returncode, DENIED, done)
            self.assertEqual(told["disk"].stderr.replace("disk", "none"), told["none"].stderr)

    def test_the_hosts_path_of_the_store_is_not_told(self):
        for user, door in ("other", "mount"), ("operator", "bind"):
            done = self.given(user, door, "info", self.mnt, "--json")
            self.assertEqual(done.returncode, 0, done)
            self.assertNotIn(str(self.store.store), done.stdout)
        self.assertIn(str(self.store.store), self.given("operator", "mount", "info", self.mnt, "--json").stdout)

    def test_key_show_does_not_name_images_in_closed_directories(self):
        rekeyfs("key", "grant", "a", OTHER, self.mnt)
        shown = self.given("other", "mount", "key", "show", "a", self.mnt, "--json")
        self.assertEqual(json.loads(shown.stdout)["uses"], [])
        self.assertNotIn(str(OWNER), shown.stdout, "nor who else has a grant")

    def test_groups_count(self):
        self.folder.chmod(0o750)
        os.chown(self.folder, OWNER, 64100)
        self.disk.chmod(0o600)
        ask = [REKEYFS, "info", self.disk]
        self.assertEqual(run(*ask, uid=OTHER, check=False).returncode, DENIED)
        with_group = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--groups=64100", "--"]
        self.assertEqual(run(*with_group, *ask, check=False).returncode, 0)

    def test_a_directory_is_not_guessed_by_its_number(self):
        """Who may read an image is told nothing of directories that he has not opened."""
        script = """
import fcntl, json, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
text = json.dumps({"command": "plan", "directory": int(sys.argv[2])}).encode()
fcntl.ioctl(fd, 1 << 30 | 8192 << 16 | ord("R") << 8 | 1, bytearray(struct.pack("I", len(text)) + text.ljust(8188, b"\\0")))
answer = bytearray(8192)
fcntl.ioctl(fd, 3 << 30 | 8192 << 16 | ord("R") << 8 | 2, answer)
print(answer[16:].rstrip(b"\\0").decode())
"""
        image = self.public / "readable"
        image.write_bytes(b"x")
        image.chmod(0o644)
        told = run("python3", "-c", script, image, os.stat(self.folder).st_ino, uid=OTHER).stdout
        self.assertIn("error", json.loads(told))
        self.assertNotIn('"a"', told)

    # Rotation.

    def policy(self, name, key, owner):
        folder = self.public / name
        folder.mkdir()
        os.setxattr(folder, "user.rekeyfs.key", key.encode())
        os.chown(folder, owner, owner)
        folder.chmod(0o777)
        return folder

    def test_a_revoked_user_does_not_rotate_himself_back(self):
        rekeyfs("key", "create", "mine", self.mnt, uid=OWNER)
        rekeyfs("key", "revoke", "a", OWNER, self.mnt)
        self.assertNotEqual(run("setfattr", "-x", "user.rekeyfs.key", self.folder, uid=OWNER, check=False).returncode, 0)
        done = rekeyfs("rotate", self.folder, "--key", "mine", uid=OWNER, check=False)
        self.assertEqual(done.returncode, DENIED, done)
        self.assertNotEqual(run("cat", self.disk, uid=OWNER, check=False).returncode, 0)
        self.assertEqual(attribute(self.folder, "key"), "a")

    def test_an_image_with_a_key_of_another_is_skipped(self):
        """The directory's key is his, the image's is not any more."""
        rekeyfs("key", "create", "mine", self.mnt, uid=OWNER)
        rekeyfs("key", "create", "next", self.mnt, uid=OWNER)
        folder = self.policy("mixed", "mine", OWNER)
        run(REKEYFS, "replicate", "--key", "a", self.disk, folder / "old", uid=OWNER)
        self.store.wait_normal(folder / "old")
        run("cp", self.store.original("more", MIB, seed=2), folder / "new", uid=OWNER)
        rekeyfs("key", "revoke", "a", OWNER, self.mnt)
        done = rekeyfs("rotate", folder, "--key", "next", uid=OWNER, check=False)
        self.assertEqual(done.returncode, PARTIAL, done)
        self.assertIn("/public/mixed/old: user 64001 has no grant for key \"a\"", done.stdout)
        self.assertEqual(attribute(folder / "old", "key"), "a")
        self.assertEqual(attribute(folder / "new", "key"), "next")

    def test_a_directorys_owner_does_not_take_images_of_others(self):
        """Neither a protected one nor a private one; a hard link into a directory of one's own does not help."""
        rekeyfs("key", "create", "mine", self.mnt, uid=OTHER)
        rekeyfs("key", "grant", "a", OTHER, self.mnt)
        shared = self.policy("shared", "a", OTHER)
        run("cp", self.store.original("private", MIB, seed=3), shared / "private", uid=OWNER)
        run("cp", self.store.original("own", MIB, seed=4), shared / "own", uid=OTHER)
        run("cp", self.store.original("own", MIB, seed=4), shared / "protected", uid=OTHER)
        run("setfattr", "-n", "user.rekeyfs.protected", "-v", "1", shared / "protected", uid=OTHER)
        (shared / "sub").mkdir()
        os.chown(shared / "sub", OWNER, OWNER)
        os.link(self.disk, shared / "linked")
        planned = rekeyfs("rotate", shared, "--key", "mine", "--dry-run", uid=OTHER, check=False)
        done = rekeyfs("rotate", shared, "--key", "mine", uid=OTHER, check=False)
        for told in planned, done:
            self.assertEqual(told.returncode, PARTIAL, told)
            for name in ("private", "protected", "sub", "linked"):
                self.assertIn(f"/public/shared/{name}: ", told.stdout)
        for name in ("private", "protected", "linked"):
            self.assertEqual(attribute(shared / name, "key"), "a", name)
        self.assertEqual(attribute(shared / "sub", "key"), "a")
        self.assertEqual(attribute(shared / "own", "key"), "mine")
        by_operator = rekeyfs("rotate", shared, "--key", "mine", check=False)
        self.assertEqual(by_operator.returncode, PARTIAL, "the protected one is left alone by operators, too")
        self.assertEqual(attribute(shared / "private", "key"), "mine")
        self.assertEqual(attribute(shared / "protected", "key"), "a")

    def test_a_policy_is_set_and_removed_with_grants_for_both_keys(self):
        rekeyfs("key", "create", "mine", self.mnt, uid=OTHER)
        folder = self.policy("his", "mine", OTHER)
        self.assertNotEqual(run("setfattr", "-n", "user.rekeyfs.key", "-v", "a", folder, uid=OTHER, check=False).returncode, 0)
        rekeyfs("key", "grant", "a", OTHER, self.mnt)
        run("setfattr", "-n", "user.rekeyfs.key", "-v", "a", folder, uid=OTHER)
        rekeyfs("key", "revoke", "a", OTHER, self.mnt)
        for change in (["-x", "user.rekeyfs.key"], ["-n", "user.rekeyfs.key", "-v", "mine"]):
            self.assertNotEqual(run("setfattr", *change, folder, uid=OTHER, check=False).returncode, 0, change)
        self.assertEqual(attribute(folder, "key"), "a")
        os.removexattr(folder, "user.rekeyfs.key")  # an operator may


if __name__ == "__main__":
    unittest.main()

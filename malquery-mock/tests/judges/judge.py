#!/usr/bin/env python3
"""Compares searches and hunts over a corpus with what others find in the same files.

    malquery-mock/tests/judges/judge.py [--seed N] [--rounds N] COMMAND...

COMMAND is what to judge, such as `target/debug/malquery`. It is run as

    COMMAND exact-search --corpus DIR --pattern TYPE:VALUE [--pattern ...] --wait
    COMMAND hunt --corpus DIR --rule FILE --wait

and has to print `{"resources": [{"sha256": ...}, ...]}`. The judges are Python's `in`, `grep` for patterns of
one line, and the command `yara` (Debian package `yara`) for rules; without one of them this fails.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

# Where a search that reads pieces of such a size would miss what lies over the edge.
EDGES = [4096, 32768, 65536, 131072, 262144, 524288, 1048576]

RULES = {
    "text": '{ strings: $a = "needle" condition: $a }',
    "nocase": '{ strings: $a = "NeEdLe" nocase condition: $a }',
    "wide": '{ strings: $a = "needle" wide condition: $a }',
    "both": '{ strings: $a = "needle" ascii wide condition: #a > 1 }',
    "fullword": '{ strings: $a = "needle" fullword condition: $a }',
    "xor": '{ strings: $a = "needle" xor(1-255) condition: $a }',
    "base64": '{ strings: $a = "needle in a haystack" base64 condition: $a }',
    "hex": "{ strings: $a = { 6e 65 ?? 64 [2-6] 6e 65 } condition: $a }",
    "alternatives": "{ strings: $a = { 00 ( 01 02 | 03 ?4 | 05 ) 00 } condition: $a }",
    "regex": "{ strings: $a = /nee[a-d]le.{1,20}needle/ condition: $a }",
    "lines": "{ strings: $a = /^needle$/ condition: $a }",
    "count": '{ strings: $a = "a" condition: #a > 3000 }',
    "at": '{ strings: $a = "needle" condition: $a at 0 or $a in (262100..262200) }',
    "offset": '{ strings: $a = "needle" $b = "haystack" condition: $a and $b and @b[1] > @a[1] }',
    "of": '{ strings: $a = "needle" $b = "haystack" $c = { 00 01 02 } condition: 2 of them }',
    "without": '{ strings: $a = "needle" condition: not $a }',
    "size": "{ condition: filesize > 4096 and filesize < 1MB }",
    "empty": "{ condition: filesize == 0 }",
    "integers": "{ condition: uint32be(0) == 0x7f454c46 or uint16(2) == 0x6564 }",
    "loop": '{ strings: $a = "needle" condition: for any i in (1..#a) : (@a[i] % 2 == 1) }',
    "every": "{ condition: true }",
    "elf": "{ condition: elf.type == elf.ET_EXEC or elf.number_of_sections > 20 }",
    "pe": "{ condition: pe.is_pe and pe.number_of_sections > 0 }",
    "entropy": "{ condition: math.entropy(0, filesize) > 6.5 }",
    "md5": '{ condition: hash.md5(0, 6) == "%s" }' % hashlib.md5(b"needle").hexdigest(),
}
IMPORTS = "".join(f'import "{name}"\n' for name in ["elf", "pe", "math", "hash"])


def make(folder, chance):
    """Writes files of many sizes, with parts of patterns all over."""
    words = [b"needle", b"needl", b"eedle", b"NEEDLE", b"haystack", b"needle in a haystack", b"needle\n",
             b"\0\1\2\0", b"\0\3\x44\0", b"aaaaaaaa", b"nee", b"dle", "needle".encode("utf-16-le"),
             b"bmVlZGxlIGluIGEgaGF5c3RhY2s=", bytes(byte ^ 0x5a for byte in b"needle")]
    for index in range(120):
        size = chance.choice([0, 1, 5, 6, 100, 4096, 5000, 70_000, *EDGES, 262_144 * 2 + 3, 3_000_000])
        data = bytearray(chance.choice([lambda: chance.randbytes(size), lambda: b"xy z\n" * (size // 5)])())
        for _ in range(chance.choice([0, 1, 3, 3 + size // 3000])):
            word = chance.choice(words)
            edge = chance.choice([0, size - len(word), chance.randrange(size + 1), *EDGES])
            at = max(0, edge - chance.choice([0, chance.randrange(len(word) + 1)]))
            if at + len(word) <= len(data):
                data[at:at + len(word)] = word
        path = folder / chance.choice(["", ".hidden", "a/b", "ü"]) / f"{index}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if index % 20 == 0:
            shutil.copy(path, folder / f"copy of {index}")
    # What every rule needs to find something.
    program = bytearray(1024)
    program[0:2], program[60], program[64:68] = b"MZ", 64, b"PE\0\0"
    program[68:72], program[84:88], program[88:90] = b"\x4c\x01\x01\0", b"\xe0\0\x02\x01", b"\x0b\x01"
    program[312:317] = b".text"
    for index, data in enumerate([*words, b" needle needle", b"needle haystack", b"a" * 4000, program]):
        (folder / f"fixed {index}").write_bytes(data)
    for edge in EDGES:
        for cut in range(len(b"needle") + 1):
            (folder / f"over {edge} by {cut}").write_bytes(b"." * (edge - cut) + b"needle" + b"." * cut)
    for program in [sys.executable, "/bin/sh", "/bin/ls"]:
        shutil.copy(os.path.realpath(program), folder / f"program {pathlib.Path(program).name}")
    (folder / "link").symlink_to(folder)
    (folder / "dangling").symlink_to("nothing")
    os.mkfifo(folder / "pipe")


def contents(folder):
    """The bytes of each regular file by its path."""
    files = {}
    for root, _, names in os.walk(folder):
        for path in (pathlib.Path(root, name) for name in names):
            if path.is_file() and not path.is_symlink():
                files[str(path)] = path.read_bytes()
    return files


def pattern(chance, files):
    """A pattern as an argument, and its bytes: a part of a file, a word, or a word with an error."""
    kind = chance.choice(["hex", "ascii", "wide"])
    if kind == "hex":
        data = chance.choice([data for data in files.values() if data])
        edge = chance.choice([*EDGES, chance.randrange(len(data))])
        at = max(0, min(edge, len(data)) - chance.randrange(1, 40))
        data = bytearray(data[at:at + chance.randrange(1, 60)])
        if chance.random() < 0.2:
            data[-1] ^= 1
        return "hex:" + data.hex(), bytes(data)
    text = chance.choice(["needle", "needl", "Needle", "haystack", "eedle in", "a", "xy z\nxy", "nowhere at all"])
    return f"{kind}:{text}", text.encode("utf-16-le" if kind == "wide" else "ascii")


class Judge:
    def __init__(self, command, folder, files):
        self.command, self.folder, self.files = command, folder, files
        self.hashes = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        self.outcomes = collections.Counter()

    def ask(self, what):
        result = subprocess.run([*self.command, *what, "--wait"], capture_output=True, text=True, timeout=600)
        if result.returncode != 0:
            sys.exit(f"{what} failed with {result.returncode}\n{result.stdout}{result.stderr}")
        hashes = [sample["sha256"] for sample in json.loads(result.stdout)["resources"]]
        if len(hashes) != len(set(hashes)):
            sys.exit(f"{what} reports a content twice")
        return set(hashes)

    def compare(self, what, found, name, paths):
        expected = {self.hashes[path] for path in paths}
        self.outcomes["nothing" if not expected else "all" if expected == set(self.hashes.values()) else "some"] += 1
        if found != expected:
            wrong = [(path, hash in found) for path, hash in self.hashes.items() if (hash in found) != (hash in expected)]
            lines = "".join(f"\n  {path}: {'only here' if ours else 'only there'}" for path, ours in wrong)
            sys.exit(f"{what} differs from {name}{lines}\nthe files are kept in {self.folder}")

    def search(self, patterns):
        what = ["exact-search", "--corpus", str(self.folder)]
        for argument, _ in patterns:
            what += ["--pattern", argument]
        found = self.ask(what)
        holding = [path for path, data in self.files.items() if all(needle in data for _, needle in patterns)]
        self.compare(what, found, "Python", holding)
        for _, needle in patterns:
            if needle.isascii() and needle.decode().isprintable():
                grep = ["grep", "--recursive", "--devices=skip", "--files-with-matches", "--null", "--text",
                        "--fixed-strings", "--regexp", needle.decode(), str(self.folder)]
                result = subprocess.run(grep, capture_output=True, env={**os.environ, "LC_ALL": "C"})
                if result.returncode > 1:
                    sys.exit(f"grep failed: {result.stderr.decode()}")
                listed = {os.fsdecode(path) for path in result.stdout.split(b"\0") if path}
                holding = [path for path in holding if path in listed]
                self.compare(what, found, "grep", holding)

    def hunt(self, name, rule):
        with tempfile.NamedTemporaryFile("w", suffix=".yar") as file:
            file.write(f"{IMPORTS}rule is_{name} {rule}")
            file.flush()
            what = ["hunt", "--corpus", str(self.folder), "--rule", file.name]
            found = self.ask(what)
            # By a list: the command would wait for the pipe in the folder.
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as paths:
                paths.write("".join(f"{path}\n" for path in self.files))
                paths.flush()
                yara = ["yara", "--scan-list", file.name, paths.name]
                result = subprocess.run(yara, capture_output=True, text=True)
            if result.returncode != 0 or "error" in result.stderr:
                sys.exit(f"yara failed for {name}: {result.stderr}")
            start = f"is_{name} "
            matching = [line.removeprefix(start) for line in result.stdout.splitlines() if line.startswith(start)]
            if not matching:
                sys.exit(f"no file has what the rule {name} looks for, so it shows nothing")
            self.compare([*what, rule], found, "yara", matching)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--no-rules", action="store_true", help="the command has no hunt")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("the command to be judged is missing")
    for tool in ["grep"] + ([] if arguments.no_rules else ["yara"]):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing; install the package {tool}")
    print(f"seed {arguments.seed}", flush=True)
    chance = random.Random(arguments.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="judge-"))
    make(folder, chance)
    files = contents(folder)
    judge = Judge(arguments.command, folder, files)
    judge.search([("ascii:needle", b"needle")])
    for _ in range(arguments.rounds - 1):
        judge.search([pattern(chance, files) for _ in range(chance.choice([1, 1, 2, 3]))])
    print(f"{arguments.rounds} searches agree: {dict(judge.outcomes)}", flush=True)
    if not arguments.no_rules:
        judge.outcomes.clear()
        for name, rule in RULES.items():
            judge.hunt(name, rule)
        print(f"{len(RULES)} hunts agree: {dict(judge.outcomes)}")
    shutil.rmtree(folder)


main()

#!/usr/bin/env python3
"""Checks that the public API of a crate names only the allowed crates, and names all of them.

    .ci/external-types.py CRATE ALLOWED...

It reads rustdoc's JSON output, which stable Rust produces only with RUSTC_BOOTSTRAP.
"""

import json
import os
import subprocess
import sys


def main(crate, allowed):
    metadata = subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"])
    # In a separate folder: RUSTC_BOOTSTRAP would force rebuilds in the normal one.
    target = json.loads(metadata)["target_directory"] + "/rustdoc-json"
    command = ["cargo", "rustdoc", "-q", "-p", crate, "--all-features", "--lib", "--target-dir", target, "--"]
    command += ["-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"]
    subprocess.run(command, check=True, env={**os.environ, "RUSTC_BOOTSTRAP": "1"})
    with open(f"{target}/doc/{crate.replace('-', '_')}.json", encoding="utf-8") as file:
        docs = json.load(file)

    found = {}
    for item in docs["index"].values():
        # Auto traits and blanket implementations exist for every type, so they do not count.
        implementation = item["inner"].get("impl", {})
        if item["crate_id"] != 0 or implementation.get("is_synthetic") or implementation.get("blanket_impl"):
            continue
        for path in named(item["inner"]):
            summary = docs["paths"].get(str(path))
            if summary and summary["crate_id"] != 0:
                name = docs["external_crates"][str(summary["crate_id"])]["name"]
                found.setdefault(name, set()).add("::".join(summary["path"]))
    others = {name: paths for name, paths in found.items() if name not in {"std", "core", "alloc", *allowed}}
    for name, paths in sorted(others.items()):
        print(f"{crate} names {name}: {', '.join(sorted(paths))}")
    unused = [name for name in allowed if name not in found]
    if unused:
        print(f"{crate} does not name {', '.join(unused)}: remove it from the allowed crates")
    return 1 if others or unused else 0


def named(value):
    """Yields the ids of all types and traits in a declaration."""
    if isinstance(value, dict):
        for key in ("resolved_path", "trait", "trait_"):
            part = value.get(key)
            if isinstance(part, dict) and "id" in part:
                yield part["id"]
        for part in value.values():
            yield from named(part)
    elif isinstance(value, list):
        for part in value:
            yield from named(part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

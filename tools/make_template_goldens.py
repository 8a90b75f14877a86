#!/usr/bin/env python3
"""Renders every chat template of ../shared/data/templates over src/text/jinja/testdata/conversations.json with
jinja2 and writes hashes of what comes out to src/text/jinja/testdata/goldens.tsv.

One line per template: its path, sha256 of its source (16 digits), and one column per conversation: 16 hex digits of
the sha256 of the text; "!" and the same of the message where the template calls raise_exception; "?" where Python
raises anything else. Needs jinja2 3.1.6. Argument: another folder of templates."""
import hashlib
import json
import os
import pathlib
import sys

import template_reference as reference

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTDATA = ROOT / "src/text/jinja/testdata"


def digest(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def main():
    data = pathlib.Path(os.environ.get("CAIRN_DATA", ROOT.parent / "shared/data"))
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else data / "templates"
    conversations = json.loads((TESTDATA / "conversations.json").read_text("utf-8"))
    env = reference.environment()
    lines = ["\t".join(["template", "source"] + [c["name"] for c in conversations])]
    counts = {"ok": 0, "refused": 0, "error": 0}
    for path in sorted(folder.rglob("*.jinja")):
        source = path.read_text("utf-8")
        columns = [str(path.relative_to(folder)), digest(source)]
        for conversation in conversations:
            # A fresh copy each time, as a template of old could change what it was given.
            variables = json.loads(json.dumps(conversation["variables"]))
            status, text = reference.render(env, source, variables)
            counts[status] += 1
            columns.append({"ok": digest(text), "refused": "!" + digest(text), "error": "?"}[status])
        lines.append("\t".join(columns))
    (TESTDATA / "goldens.tsv").write_text("\n".join(lines) + "\n")
    print(f"{len(lines) - 1} templates x {len(conversations)} conversations: {counts}")


if __name__ == "__main__":
    main()

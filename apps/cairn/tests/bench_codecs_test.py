#!/usr/bin/env python3
"""cairn bench codecs: a small run with its three outputs, and what it refuses."""

import json
import xml.dom.minidom

import program
from program import ProgramTest


class BenchCodecs(ProgramTest):
    def test_table_json_and_picture(self):
        json_path, plot = self.folder / "times.json", self.folder / "times.svg"
        out = self.succeed("bench", "codecs", "--codecs", "bf16,q8_0,q4_k", "--shapes", "256x512,128x256", "--rows",
                           "4,1", "--seconds", "0", "--json", json_path, "--plot", plot).decode()
        for text in ("w [128, 256]", "w [256, 512]", "energy: ", "1 row: fastest ", "4 rows: fastest "):
            self.assertIn(text, out)
        told = json.loads(json_path.read_text())
        self.assertEqual(len(told["times"]), 3 * 2 * 2)
        for t in told["times"]:
            self.assertGreater(t["seconds"], 0)
        self.assertEqual({t["rows"] for t in told["times"]}, {1, 4})
        xml.dom.minidom.parse(str(plot))

    def test_refusals(self):
        self.refuse(2, "bench", "codecs", "--codecs", "q5_z", says=["'q5_z'", "q4_k"])
        self.refuse(2, "bench", "codecs", "--shapes", "12", says=["'12'", "4096x14336"])
        self.refuse(2, "bench", "codecs", "--shapes", "-1x64", says="'-1x64'")
        self.refuse(2, "bench", "codecs", "--rows", "0", says="0")
        self.refuse(2, "bench", "codecs", "--codecs", "q4_k", "--shapes", "16x100", says="100 columns")


if __name__ == "__main__":
    program.main()

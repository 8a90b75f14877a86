#!/usr/bin/env python3
"""cairn compare and cairn perplexity on the shipped model's two forms."""

import json
import math
import unittest
from pathlib import Path

import program
from program import ProgramTest

MODELS = Path(__file__).resolve().parents[3] / "models/cairn-stories"
FULL, SMALL = MODELS, MODELS / "cairn-stories-q8_0.gguf"
TEXT = ("Once upon a time there was a little girl who lived near the sea. Every morning she went to the beach with "
        "her dog and looked for shells. One day the dog found a small box under the sand. ") * 8


class Compare(ProgramTest):
    def compare(self, *arguments):
        text = self.write("text.txt", TEXT)
        return json.loads(self.succeed("compare", *arguments, text, "--json", "--window", "100"))

    def test_a_model_does_not_differ_from_itself(self):
        found = self.compare(FULL, FULL)
        self.assertEqual((found["kl_mean"], found["kl_max"], found["nll_difference"]), (0, 0, 0))
        self.assertEqual(found["same_first_choice"], 1)

    def test_eight_bits_lose_a_little(self):
        found = self.compare(FULL, SMALL)
        self.assertGreater(found["tokens"], 200)
        self.assertGreater(found["kl_mean"], 0)
        self.assertLess(found["kl_mean"], 0.02)
        self.assertLessEqual(found["kl_median"], found["kl_99"])
        self.assertLessEqual(found["kl_99"], found["kl_max"])
        self.assertGreater(found["same_first_choice"], 0.9)
        self.assertAlmostEqual(found["first"]["bits_per_weight"], 16, delta=0.1)
        self.assertAlmostEqual(found["second"]["bits_per_weight"], 8.5, delta=0.1)
        self.assertAlmostEqual(math.log(found["second"]["perplexity"] / found["first"]["perplexity"]),
                               found["nll_difference"], delta=1e-9)

    def test_the_perplexity_is_the_one_of_the_other_command(self):
        found = self.compare(FULL, SMALL)
        for form, key in ((FULL, "first"), (SMALL, "second")):
            alone = json.loads(self.succeed("perplexity", form, self.folder / "text.txt", "--json", "--window", "100"))
            self.assertEqual(alone["tokens"], found["tokens"])
            self.assertAlmostEqual(alone["perplexity"], found[key]["perplexity"], delta=1e-9 * alone["perplexity"])

    def test_the_table_is_for_people(self):
        text = self.write("text.txt", TEXT)
        out = self.succeed("compare", FULL, SMALL, text, "--tokens", "150").decode()
        for part in ("bits per weight", "16.00", "8.5", "same first choice", "+-"):
            self.assertIn(part, out)

    def test_what_cannot_be_compared_is_refused(self):
        text = self.write("text.txt", TEXT)
        self.refuse(2, "compare", FULL, SMALL, self.write("short.txt", ""), says="at least 2")
        self.refuse(2, "compare", FULL, SMALL, text, "--window", "1", says="--window")
        self.refuse(2, "compare", FULL, says="second")
        self.refuse(2, "compare", FULL, SMALL, text, "--kv", "q3", says="q3")


if __name__ == "__main__":
    program.main()

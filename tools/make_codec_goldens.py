#!/usr/bin/env python3
"""Random blocks of every block format and the hashes of what the `gguf` package decodes them to.

Writes one file per format, NAME.golden: N blocks of random bytes, then N little-endian u64. Each u64 is the FNV-1a
hash over the block's decoded f32 values taken as 32-bit words, with every NaN replaced by 0x7fc00000 (which NaN comes
out of an operation on NaNs is nobody's promise). src/codecs/golden_test.cpp reads them; CAIRN_CODEC_GOLDENS names
another folder, for runs over more blocks than we commit:

  tools/make_codec_goldens.py                                 # the 64 committed blocks per format
  tools/make_codec_goldens.py --blocks 100000 --out /tmp/g    # then CAIRN_CODEC_GOLDENS=/tmp/g codecs_test

Needs: pip install gguf numpy
"""
import argparse
import pathlib

import gguf
import numpy as np

FORMATS = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NVFP4 TQ1_0 TQ2_0".split()


def hashes(values: np.ndarray) -> np.ndarray:
    words = np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32)).astype(np.uint64)
    result = np.full(values.shape[0], 0xCBF29CE484222325, np.uint64)
    for column in range(words.shape[1]):
        result = (result ^ words[:, column]) * np.uint64(0x100000001B3)
    return result


def main() -> None:
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=64)
    parser.add_argument("--out", type=pathlib.Path, default=here.parent / "src/codecs/testdata")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in FORMATS:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rng = np.random.default_rng([args.seed, int(kind)])
        blocks = rng.integers(0, 256, (args.blocks, size), np.uint8)
        values = np.ascontiguousarray(gguf.dequantize(blocks, kind), dtype=np.float32).reshape(args.blocks, elements)
        with np.errstate(all="ignore"):
            (args.out / f"{name.lower()}.golden").write_bytes(blocks.tobytes() + hashes(values).astype("<u8").tobytes())


if __name__ == "__main__":
    main()

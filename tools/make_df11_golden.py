"""Writes src/codecs/testdata/df11.golden: a group as DFloat11's file form describes it, encoded here in plain
Python, with a tree and tables made otherwise than cairn's; and decodes one that cairn encoded.

    make_df11_golden.py OUT          # writes the golden group
    make_df11_golden.py --check IN   # decodes a group in the same container; the last field is what it must be

The container: per field a little-endian u64 of bytes and the bytes; sign_mantissa, encoded_exponent, gaps,
output_positions, luts, bf16 words.
"""
import heapq
import random
import struct
import sys
from collections import Counter

BLOCK, CHUNK = 4096, 8


def codes_of(exponents):
    counts = Counter(exponents)
    counts["end"] = 1
    heap = [(count, i, symbol) for i, (symbol, count) in enumerate(sorted(counts.items(), key=str))]
    heapq.heapify(heap)
    number = len(heap)
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a[0] + b[0], number, (a[2], b[2])))
        number += 1
    codes = {}

    def walk(node, prefix):
        if isinstance(node, tuple):
            walk(node[0], prefix + "1")
            walk(node[1], prefix + "0")
        else:
            codes[node] = prefix
    walk(heap[0][2], "")
    assert max(map(len, codes.values())) <= 32
    return codes


def encode(words):
    exponents = [w >> 7 & 0xFF for w in words]
    codes = codes_of(exponents)
    sign_mantissa = bytes(w >> 8 & 0x80 | w & 0x7F for w in words)
    text, at, gaps, positions = [], 0, [], []
    for i, e in enumerate(exponents):
        if at // 64 >= len(gaps):
            gaps.append(at % 64)
        if at // (8 * BLOCK) >= len(positions):
            positions.append(i)
        text.append(codes[e])
        at += len(codes[e])
    positions.append(len(words))
    text = "".join(text)
    if len(text) % 8:
        missing = 8 - len(text) % 8
        text += codes["end"][:missing].ljust(missing, "0")
    encoded = bytes(int(text[i:i + 8], 2) for i in range(0, len(text), 8))
    blocks = -(-len(encoded) // BLOCK)
    gaps += [0] * (blocks * BLOCK // CHUNK - len(gaps))
    gap_text = "".join(f"{g:05b}" for g in gaps)
    packed_gaps = bytes(int(gap_text[i:i + 8], 2) for i in range(0, len(gap_text), 8))
    prefixes = [""]
    for symbol, code in sorted(codes.items(), key=lambda item: (len(item[1]), item[1])):
        for depth in range(8, len(code), 8) if symbol != "end" else []:
            if code[:depth] not in prefixes:
                prefixes.append(code[:depth])
    prefixes.sort(key=len)
    assert len(prefixes) <= 16
    tables = []
    for prefix in prefixes:
        entries, current = {}, 0
        for symbol, code in codes.items():
            if symbol == "end" or not code.startswith(prefix) or len(code) <= len(prefix):
                continue
            rest = code[len(prefix):]
            if len(rest) <= 8:
                entries[int(rest.ljust(8, "0"), 2)] = symbol
            else:
                entries[int(rest[:8], 2)] = 256 - prefixes.index(prefix + rest[:8])
        row = []
        for i in range(256):  # what lies between codes carries the value before on, as the publisher does
            current = entries.get(i, current)
            row.append(current)
        tables.append(bytes(row))
    tables.append(bytes(len(codes.get(e, "")) for e in range(256)))
    return [sign_mantissa, encoded, packed_gaps, struct.pack(f"<{len(positions)}I", *positions), b"".join(tables),
            struct.pack(f"<{len(words)}H", *words)]


def decode(sign_mantissa, encoded, gaps, positions, luts):
    """Chunk by chunk, as the GPU's threads do, each from its gap."""
    positions = struct.unpack(f"<{len(positions) // 4}I", positions)
    lengths = luts[-256:]
    bits = int.from_bytes(encoded + bytes(8), "big")
    total = 8 * (len(encoded) + 8)
    gap_bits = int.from_bytes(gaps, "big")
    n, out, chunk = len(sign_mantissa), [], 0
    for chunk in range(-(-len(encoded) // CHUNK)):
        if chunk % 512 == 0:
            assert positions[chunk // 512] == len(out), ("block", chunk // 512, positions[chunk // 512], len(out))
        at = 64 * chunk + (gap_bits >> (8 * len(gaps) - 5 * chunk - 5) & 31)
        while at < 64 * (chunk + 1) and len(out) < n:
            window = bits >> (total - at - 32) & 0xFFFFFFFF
            entry = luts[window >> 24]
            for depth in range(1, 4):
                if entry >= 240:
                    entry = luts[256 * (256 - entry) + (window >> (24 - 8 * depth) & 0xFF)]
            assert entry < 240 and lengths[entry]
            s = sign_mantissa[len(out)]
            out.append((s & 0x80) << 8 | entry << 7 | s & 0x7F)
            at += lengths[entry]
    assert len(out) == n == positions[-1]
    return out


def read(path):
    data, fields = open(path, "rb").read(), []
    while data:
        size, = struct.unpack_from("<Q", data)
        fields.append(data[8:8 + size])
        data = data[8 + size:]
    return fields


def main():
    if sys.argv[1] == "--check":
        fields = read(sys.argv[2])
        words = list(struct.unpack(f"<{len(fields[5]) // 2}H", fields[5]))
        assert decode(*fields[:5]) == words
        print(f"{len(words)} elements decode as they should")
        return
    rng = random.Random(11)
    words = []
    for i in range(26000):
        bits, = struct.unpack("<I", struct.pack("<f", rng.gauss(0, 0.02)))
        words.append(bits >> 16)
    for e in range(40, 105):  # rare ones, whose codes are longer than a byte
        words.insert(rng.randrange(len(words)), rng.randrange(2) << 15 | e << 7 | rng.randrange(128))
    fields = encode(words)
    assert decode(*fields[:5]) == words
    with open(sys.argv[1], "wb") as file:
        for field in fields:
            file.write(struct.pack("<Q", len(field)) + field)
    print(f"{len(words)} elements, {len(fields[4]) // 256 - 1} tables, {len(fields[1])} bytes of codes")


main()

"""Write genome.fa, random, and reads.fq: pieces of it from both strands, with two errors each."""

import numpy as np

BASES, READS, LENGTH = 32_000_000, 40_000, 150

draw = np.random.PCG64(11)
letters = np.frombuffer(b"ACGT", np.uint8)
other_strand = bytes.maketrans(b"ACGT", b"TGCA")
genome = letters[draw.random_raw(BASES) >> np.uint64(62)]
with open("genome.fa", "wb") as file:
    file.write(b">random\n")
    for line in genome.reshape(-1, 80):
        file.write(line.tobytes() + b"\n")
with open("reads.fq", "wb") as file:
    for number, start in enumerate(draw.random_raw(READS) % np.uint64(BASES - LENGTH)):
        read = genome[int(start) : int(start) + LENGTH].copy()
        read[draw.random_raw(2) % np.uint64(LENGTH)] = letters[draw.random_raw(2) >> np.uint64(62)]
        text = read.tobytes()
        if number % 2:
            text = text[::-1].translate(other_strand)
        file.write(b"@r%d\n%b\n+\n%b\n" % (number, text, b"I" * LENGTH))

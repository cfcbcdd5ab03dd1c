"""Write text.txt (20 MB of words with a natural frequency) and lines.txt (20 MB to sort)."""

import itertools
import random

r = random.Random(1)
syllables = [a + b for a, b in zip("bcdfghjklmnprstvwxyz", "aeiou" * 4, strict=True)]
words = ["".join(r.choices(syllables, k=r.randint(1, 5))) for _ in range(60000)]
weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(words))))
with open("text.txt", "w") as file:
    for _ in range(250_000):
        file.write(" ".join(r.choices(words, cum_weights=weights, k=12)) + "\n")
with open("lines.txt", "w") as file:
    for number in range(160_000):
        text = " ".join(r.choices(words, cum_weights=weights, k=16))
        file.write(f"{r.getrandbits(64):016x} {number:08d} {text}\n")

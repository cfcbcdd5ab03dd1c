"""Write edges.bin: both directions of 4 M edges of a power-law graph, sorted, as pairs of uint64."""

import numpy as np

SCALE, EDGES = 20, 4_000_000
QUADRANTS = (57, 76, 95)  # Graph 500's: 57, 19, 19 and 5 of 100

draw = np.random.PCG64(7)
ends = np.zeros((2, EDGES), np.int64)
for _ in range(SCALE):
    per_cent = (draw.random_raw(EDGES) >> np.uint64(11)) % np.uint64(100)
    quadrant = np.searchsorted(QUADRANTS, per_cent, side="right")
    ends = ends << 1 | np.array([quadrant >> 1, quadrant & 1])
names = np.argsort(draw.random_raw(1 << SCALE))  # else neighbours in memory would be alike
ends = names[ends]
both = np.concatenate([ends, ends[::-1]], axis=1)
order = np.lexsort(both[::-1])
both[:, order].T.astype("<u8").tofile("edges.bin")

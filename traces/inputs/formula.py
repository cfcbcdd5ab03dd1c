"""Write formula.cnf: a random 3-SAT formula of 200,000 variables and 3.8 clauses for each."""

import numpy as np

VARIABLES, CLAUSES = 200_000, 760_000

draw = np.random.PCG64(13)
drawn = draw.random_raw(3 * CLAUSES).reshape(CLAUSES, 3)
signs = np.where(drawn >> np.uint64(63), 1, -1)
literals = signs * ((drawn % np.uint64(VARIABLES)).astype(np.int64) + 1)
with open("formula.cnf", "w") as file:
    file.write(f"p cnf {VARIABLES} {CLAUSES}\n")
    for clause in literals.tolist():
        file.write(" ".join(map(str, clause)) + " 0\n")

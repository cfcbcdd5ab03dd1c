"""A hash join: draw sales at random, look up each one's price, sum by customer."""

import array
import random

random.seed(3)
rows = 200_000
keys = array.array("Q", random.randbytes(8 * rows)).tolist()
price = dict(zip(keys, range(rows), strict=True))
draws = array.array("I", random.randbytes(4 * rows))
revenue = {}
while True:
    for number, draw in enumerate(draws):
        key = keys[draw % rows]
        customer = key % 65_521
        revenue[customer] = revenue.get(customer, 0) + price[key] * (number % 7)

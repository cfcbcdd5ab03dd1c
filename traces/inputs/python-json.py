"""Orders as JSON, batch after batch: write, read, sort, group, and look up earlier orders."""

import json
import random

random.seed(5)
names = [f"{random.getrandbits(40):010x}" for _ in range(2000)]
batch = [
    {
        "id": random.getrandbits(32),
        "name": random.choice(names),
        "lines": [{"item": random.randrange(5000), "count": random.randrange(9)} for _ in range(4)],
        "total": random.random(),
    }
    for _ in range(100)
]
seen = []
by_name = {}
while True:
    orders = json.loads(json.dumps(batch))
    orders.sort(key=lambda order: (order["name"], order["id"]))
    seen.extend(orders)
    for order in orders:
        by_name.setdefault(order["name"], []).append(order)
        for step in range(8):
            earlier = seen[(order["id"] + step * 0x9E3779B1) % 2**32 * len(seen) >> 32]
            order["total"] += earlier["total"] / 8
    for order in batch:
        order["id"] = (order["id"] * 1664525 + 1013904223) % 2**32
        order["name"] = names[order["id"] % len(names)]

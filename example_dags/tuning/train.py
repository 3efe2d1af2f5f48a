"""A training script that several tasks run with different arguments."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int, required=True)
parser.add_argument("--rate", type=float, default=0.1)
options = parser.parse_args()

print(f"depth {options.depth}, rate {options.rate}")
__return__ = {"depth": options.depth, "loss": round((options.depth - 4) ** 2 * options.rate, 3)}

"""tqdm around a loop whose steps all take as long: what it says of the time left can be held against the clock."""

import time

from tqdm import tqdm

for _ in tqdm(range(60), desc="steady"):
    time.sleep(0.1)

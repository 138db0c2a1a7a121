"""tqdm: a bar over epochs with a postfix, nested bars, a description that says the loss, a line written between frames."""

import time

from tqdm import tqdm

bar = tqdm(range(20), desc="train")
for i in bar:
    time.sleep(0.02)
    bar.set_postfix(loss=1 / (i + 1), lr="1.0e-03", seen=f"{i}/20")
for epoch in tqdm(range(3), desc="Epochs"):
    inner = tqdm(range(8), desc=f"Epoch {epoch + 1}/3", leave=False, unit="batch")
    for i in inner:
        time.sleep(0.02)
        inner.set_postfix(loss=1 / (epoch * 8 + i + 1))
    tqdm.write(f"epoch {epoch + 1}: val_loss {0.5 / (epoch + 1):.3f}")
bar = tqdm(total=5000, unit="B", unit_scale=True)
for i in range(5):
    time.sleep(0.02)
    bar.set_description(f"loss {0.1 * i:.2f}")
    bar.update(1000)
bar.close()
for _ in tqdm(iter(range(5)), desc="no total"):
    time.sleep(0.02)

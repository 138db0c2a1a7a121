"""Lines as the training scripts of PyTorch's examples, of nanoGPT and of many tutorials print them; no library needed."""

import logging

for epoch in (1, 2):
    for batch in range(0, 40, 10):
        loss = 2.3 / (epoch * 40 + batch - 39)
        print(f"Train Epoch: {epoch} [{batch * 64}/2560 ({100.0 * batch / 40:.0f}%)]\tLoss: {loss:.6f}")
    right = 2000 + 100 * epoch
    print(f"\nTest set: Average loss: {1 / right:.4f}, Accuracy: {right}/2560 ({100.0 * right / 2560:.0f}%)\n")
for epoch in range(2):
    for i in (0, 10):
        at = f"Epoch: [{epoch}][{i:>3}/20]"
        print(f"{at}\tTime  0.125 ( 0.130)\tLoss {6.9 - i / 10:.4e} ({6.9:.4e})\tAcc@1   {i:.2f} (  0.78)")
    print(f" *   Acc@1 {10 * epoch:.3f} Acc@5 {20 * epoch:.3f}")
print("number of parameters: 0.80M")
print("step 0: train loss 4.2874, val loss 4.2823")
for i in (0, 10, 20):
    print(f"iter {i}: loss {4.2 - i / 10:.4f}, time {12.3:.2f}ms, mfu -100.00%")
for step in (100, 200):
    print(f"Epoch [1/2], Step [{step}/200], Loss: {1 / step:.4f}")
print(f"Epoch [2/2], Step [100/200], Loss: {0.001:.4f}")
for epoch in (1, 2):
    print(f"epoch {epoch} | loss {1 / epoch:.3f} | acc {90 + epoch}.2% | 3.2s")
logging.basicConfig(format="%(asctime)s - %(name)s - %(levelname)s - %(message)s", level=logging.INFO)
logger = logging.getLogger("train")
logger.info("epoch=3 loss=0.25 lr=1e-3")
logger.info("Accuracy: 0.91")

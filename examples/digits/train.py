"""Read handwritten digits: a small neural network on scikit-learn's digits, which come with the library.

Prints loss and accuracy for every epoch; writes learning_curve.png, confusion.png and model.pkl.
"""

import argparse
import pickle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler


def read(seed):
    """Return training and test images, scaled, and their digits."""
    images, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(
        images, digits, test_size=0.3, random_state=seed, stratify=digits
    )
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test), train_digits, test_digits


def draw_curve(path, losses, accuracies):
    """Draw loss and accuracy by epoch."""
    figure, left = plt.subplots(figsize=(6, 4))
    epochs = np.arange(1, len(losses) + 1)
    left.plot(epochs, losses, color="tab:red", label="loss")
    left.set(xlabel="epoch", ylabel="loss")
    right = left.twinx()
    right.plot(epochs, accuracies, color="tab:blue", label="accuracy")
    right.set(ylabel="accuracy", ylim=(0, 1))
    figure.legend(loc="center")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main():
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--hidden", type=int, default=32, help="units of the hidden layer")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    train, test, train_digits, test_digits = read(args.seed)
    model = MLPClassifier(
        hidden_layer_sizes=(args.hidden,),
        solver="sgd",
        learning_rate_init=args.lr,
        batch_size=32,
        random_state=args.seed,
    )
    losses, accuracies = [], []
    for epoch in range(1, args.epochs + 1):
        model.partial_fit(train, train_digits, classes=np.arange(10))
        losses.append(model.loss_)
        accuracies.append(model.score(test, test_digits))
        print(f"epoch {epoch} loss: {losses[-1]:.4f} acc: {accuracies[-1]:.3f}")

    draw_curve("learning_curve.png", losses, accuracies)
    ConfusionMatrixDisplay.from_estimator(model, test, test_digits, colorbar=False)
    plt.savefig("confusion.png")
    Path("model.pkl").write_bytes(pickle.dumps(model))


if __name__ == "__main__":
    main()

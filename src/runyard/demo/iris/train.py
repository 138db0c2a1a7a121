# Iris: tell three species of iris apart by the length and width of sepals and petals.
#
#     python train.py --lr 0.05 --hidden 16
#
# trains a network with one hidden layer (none with --hidden 0) on two thirds of the flowers and prints, for every
# epoch, the loss on these and the accuracy on the rest. It writes learning_curve.svg and model.json. Nothing but
# Python is needed.
#
# iris.csv: 150 flowers, measured in centimetres by E. Anderson, published by R. A. Fisher, "The use of multiple
# measurements in taxonomic problems", Annals of Eugenics 7 (1936), 179-188.

import argparse
import csv
import json
import math
import random
from pathlib import Path

MOMENTUM = 0.0  # how much of the last step goes into the next


def read(path):
    """Return the measurements, scaled to mean 0 and variance 1, the species of every flower, and their names."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))[1:]
    columns = [[float(row[i]) for row in rows] for i in range(4)]
    scaled = []
    for column in columns:
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / len(column))
        scaled.append([(x - mean) / deviation for x in column])
    names = sorted({row[4] for row in rows})
    return list(zip(*scaled)), [names.index(row[4]) for row in rows], names


class Layer:
    """Weights of a layer, one row per output, the last number of a row its bias; and the last step taken."""

    def __init__(self, inputs, outputs, rng):
        scale = 1 / math.sqrt(inputs)
        self.weights = [[rng.uniform(-scale, scale) for _ in range(inputs)] + [0.0] for _ in range(outputs)]
        self.steps = [[0.0] * (inputs + 1) for _ in range(outputs)]

    def forward(self, x):
        return [sum(w * v for w, v in zip(row, x)) + row[-1] for row in self.weights]

    def backward(self, x, gradients, lr):
        """Take a step; return the gradients of the inputs."""
        back = [sum(g * row[i] for g, row in zip(gradients, self.weights)) for i in range(len(x))]
        for row, step, g in zip(self.weights, self.steps, gradients):
            for i, v in enumerate((*x, 1.0)):
                step[i] = MOMENTUM * step[i] - lr * g * v
                row[i] += step[i]
        return back


def predict(layers, x):
    """Return the probability of every species, and what the hidden layer says."""
    hidden = x
    if len(layers) == 2:
        hidden = [math.tanh(v) for v in layers[0].forward(x)]
    scores = layers[-1].forward(hidden)
    powers = [math.exp(s - max(scores)) for s in scores]
    return [p / sum(powers) for p in powers], hidden


def train_epoch(layers, flowers, species, order, lr):
    """Go through the flowers once, in this order; return the mean loss."""
    loss = 0.0
    for n in order:
        probabilities, hidden = predict(layers, flowers[n])
        loss -= math.log(probabilities[species[n]])
        gradients = [p - (k == species[n]) for k, p in enumerate(probabilities)]
        back = layers[-1].backward(hidden, gradients, lr)
        if len(layers) == 2:
            layers[0].backward(flowers[n], [g * (1 - h * h) for g, h in zip(back, hidden)], lr)
    return loss / len(order)


def accuracy(layers, flowers, species, which):
    right = 0
    for n in which:
        probabilities, _ = predict(layers, flowers[n])
        right += probabilities.index(max(probabilities)) == species[n]
    return right / len(which)


def draw(path, title, losses, accuracies):
    """Write the learning curve: loss (left axis) and accuracy (right axis) by epoch."""
    width, height, left, top = 560, 300, 50, 40
    highest = max(losses)

    def points(values, most):
        step = width / max(1, len(values) - 1)
        return " ".join("%.1f,%.1f" % (left + i * step, top + height * (1 - v / most)) for i, v in enumerate(values))

    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="660" height="400" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="330" y="24" text-anchor="middle" font-size="14">%s</text>' % title,
    ]
    for i in range(5):
        y = top + height * (1 - i / 4)
        lines.append('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>' % (left, y, left + width, y))
        lines.append('<text x="%d" y="%.1f" text-anchor="end">%.2f</text>' % (left - 6, y + 4, highest * i / 4))
        lines.append('<text x="%d" y="%.1f">%.2f</text>' % (left + width + 6, y + 4, i / 4))
    for values, most, color, name, x in (
        (losses, highest, "#c0392b", "loss", left + 10),
        (accuracies, 1.0, "#2471a3", "accuracy", left + 60),
    ):
        lines.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>' % (points(values, most), color))
        lines.append('<text x="%d" y="%d" fill="%s">%s</text>' % (x, top + height + 44, color, name))
    for epoch, x in ((1, left), (len(losses), left + width)):
        lines.append('<text x="%d" y="%d" text-anchor="middle">%d</text>' % (x, top + height + 20, epoch))
    lines.append('<text x="330" y="%d" text-anchor="middle">epoch</text></svg>' % (top + height + 20))
    Path(path).write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description="Tell three species of iris apart.")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--hidden", type=int, default=16, help="units of the hidden layer; 0: no hidden layer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default=str(Path(__file__).parent / "iris.csv"))
    args = parser.parse_args()

    rng = random.Random(args.seed)
    flowers, species, names = read(args.data)
    numbers = list(range(len(flowers)))
    rng.shuffle(numbers)
    for_training, for_testing = numbers[: 2 * len(numbers) // 3], numbers[2 * len(numbers) // 3 :]

    sizes = [4, args.hidden, len(names)] if args.hidden else [4, len(names)]
    layers = [Layer(inputs, outputs, rng) for inputs, outputs in zip(sizes, sizes[1:])]
    losses, accuracies = [], []
    for epoch in range(1, args.epochs + 1):
        rng.shuffle(for_training)
        losses.append(train_epoch(layers, flowers, species, for_training, args.lr))
        accuracies.append(accuracy(layers, flowers, species, for_testing))
        print("epoch %d loss: %.4f acc: %.2f" % (epoch, losses[-1], accuracies[-1]))

    title = "iris: lr %g, hidden %d, seed %d" % (args.lr, args.hidden, args.seed)
    draw("learning_curve.svg", title, losses, accuracies)
    model = {"species": names, "layers": [layer.weights for layer in layers]}
    Path("model.json").write_text(json.dumps(model) + "\n")


if __name__ == "__main__":
    main()

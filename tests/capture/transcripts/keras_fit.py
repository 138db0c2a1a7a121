"""Keras `fit` with validation: three epochs of a small model on made-up numbers."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(256, 4)), rng.integers(0, 2, size=256)
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
model.compile(optimizer=keras.optimizers.SGD(0.1), loss="binary_crossentropy", metrics=["accuracy"])
model.summary()
model.fit(x, y, epochs=3, batch_size=8, validation_split=0.25)
model.evaluate(x, y, batch_size=32)
model.fit(x, y, epochs=2, batch_size=32, verbose=2, validation_split=0.25)

"""The Trainer of Transformers on a tiny model with random weights: 24 steps, two evaluations, the log and its bars."""

import tempfile

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

set_seed(0)
config = BertConfig(
    vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
)
words = torch.randint(0, 32, (64, 8))
data = [{"input_ids": row, "labels": int(row[0] > 15)} for row in words]
with tempfile.TemporaryDirectory() as directory:
    arguments = TrainingArguments(
        output_dir=directory, num_train_epochs=3, per_device_train_batch_size=8, logging_steps=5,
        eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True, learning_rate=1e-3,
    )  # fmt: skip
    trainer = Trainer(
        model=BertForSequenceClassification(config), args=arguments, train_dataset=data, eval_dataset=data[:16]
    )
    trainer.train()
    print(trainer.evaluate())

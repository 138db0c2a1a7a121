"""Lightning's Trainer with its default progress bar; `rich` as the first word for the other one."""

import sys

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset


class Small(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, index):
        loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1]), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


lightning.seed_everything(0)
x = torch.randn(128, 4)
data = DataLoader(TensorDataset(x, x.sum(dim=1, keepdim=True)), batch_size=16)
bar = (
    lightning.pytorch.callbacks.RichProgressBar()
    if sys.argv[1:] == ["rich"]
    else lightning.pytorch.callbacks.TQDMProgressBar()
)
trainer = lightning.Trainer(
    max_epochs=3, logger=False, enable_checkpointing=False, accelerator="cpu", callbacks=[bar], log_every_n_steps=1
)
trainer.fit(Small(), data, data)
trainer.validate(trainer.model, data)

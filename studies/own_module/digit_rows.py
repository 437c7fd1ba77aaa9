"""A user's own network and data, with nothing of wdsearch in them: digits read row by row by one layer of attention."""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class RowAttention(nn.Module):
    """The eight rows of a digit as a sequence."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.positions = nn.Parameter(0.02 * torch.randn(8, width))
        self.encoder = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Class scores (batch, 10) of digits (batch, 8, 8)."""
        return self.head(self.encoder(self.embed(rows) + self.positions).mean(dim=1))


class DigitRows(L.LightningDataModule):
    """scikit-learn's digits, split at random."""

    def setup(self, stage: str | None = None) -> None:
        """Read and split."""
        digits = load_digits()
        rows = TensorDataset(torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target))
        self.train, self.validation = random_split(rows, [0.8, 0.2], torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches."""
        return DataLoader(self.train, batch_size=128, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """All validation rows."""
        return DataLoader(self.validation, batch_size=512)

"""What is left of what the base could do: the loss of text that is not of the task, before and after tuning.

Tuning on a narrow task makes a model forget (McCloskey and Cohen 1989). The loss of held-out text shows it at once, and
needs no answers to be judged: in nats per token, and in bits per byte of the text, which can be compared between models
with different tokenizers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whetstone.errors import UserError
from whetstone.files import read_jsonl
from whetstone.models.load import context_tokens
from whetstone.run import RetentionRecord
from whetstone.train.batch import IGNORE, Row, collate
from whetstone.train.loss import row_losses

__all__ = ["TextLosses", "compare_losses", "general_texts", "measure_rows", "measure_texts"]

_LEVEL = 0.95
_BATCH_TOKENS = 2048
"""Computed at once; logits of 2048 tokens over 150,000 words are 1.2 GB. No window is longer."""


@dataclass(frozen=True, slots=True, eq=False)
class TextLosses:
    """The loss of some texts; three arrays with one entry for each.

    Attributes:
        nll: Negative log-likelihood of the text, in nats, summed over its tokens.
        tokens: How many tokens were predicted.
        bytes: Of the text in UTF-8.
        windowed: Texts that were longer than the model's context and were predicted in several windows.
    """

    nll: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    windowed: int = 0

    @property
    def nll_per_token(self) -> float:
        """Of all tokens of all texts, in nats."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """Of all bytes of all texts."""
        return float(self.nll.sum() / math.log(2) / self.bytes.sum())


def compare_losses(source: str, before: TextLosses, after: TextLosses) -> RetentionRecord:
    """Compares two measurements of the same texts.

    The difference is a ratio: the summed change of the texts over their summed tokens. Its standard error is that
    of a ratio of paired sums (Cochran 1977, Sampling Techniques, eq. 6.13), the texts being the units; the interval
    is Student's with one degree of freedom fewer than texts.

    Raises:
        UserError: There is no token or no byte to measure.
    """
    tokens, length = int(before.tokens.sum()), int(before.bytes.sum())
    if not np.array_equal(before.tokens, after.tokens):
        raise ValueError("before and after are not of the same texts")
    if not tokens or not length:
        raise UserError(f"{source}: retention has nothing to measure; give it texts that are not empty")
    difference = float((after.nll - before.nll).sum() / tokens)
    error = _ratio_standard_error(after.nll - before.nll, before.tokens)
    spread = None if error is None else error * float(stats.t.ppf((1 + _LEVEL) / 2, len(before.tokens) - 1))
    return RetentionRecord(
        source=source,
        texts=len(before.tokens),
        tokens=tokens,
        bytes=length,
        windowed=before.windowed,
        nll_before=before.nll_per_token,
        nll_after=after.nll_per_token,
        bits_per_byte_before=before.bits_per_byte,
        bits_per_byte_after=after.bits_per_byte,
        difference=difference,
        standard_error=error,
        low=None if spread is None else difference - spread,
        high=None if spread is None else difference + spread,
    )


def general_texts() -> list[str]:
    """Sixty short passages of many kinds, written for this package and published nowhere before it."""
    rows = read_jsonl(Path(str(files("whetstone") / "assets" / "general-text.jsonl")))
    return [row["text"] for row in rows]


def measure_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> TextLosses:
    """Predicts plain texts, every token of them.

    A text begins after the BOS token, or the EOS token where there is no BOS, as where documents follow each other. One
    that does not fit into the context is cut into windows of equal length, each of which begins like a text.

    Raises:
        UserError: The tokenizer has no token that a text could begin after.
    """
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if start is None:
        raise UserError(f"{tokenizer.name_or_path}: has neither a BOS nor an EOS token, which a text begins after")
    window = min(context_tokens(model.config), _BATCH_TOKENS) - 1
    rows: list[Row] = []
    owners: list[int] = []
    for number, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        windows = math.ceil(len(ids) / window)
        rows += [Row("", (start, *part.tolist()), 1) for part in np.array_split(ids, max(1, windows)) if len(part)]
        owners += [number] * windows
    count = len(texts)
    return TextLosses(
        nll=np.bincount(owners, _row_losses(model, rows), count).astype(np.float64),
        tokens=np.bincount(owners, [row.loss_tokens for row in rows], count).astype(np.int64),
        bytes=np.array([len(text.encode()) for text in texts], dtype=np.int64),
        windowed=int((np.bincount(owners, minlength=count) > 1).sum()),
    )


def measure_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> TextLosses:
    """Predicts the answers of rows; prompts are given.

    The end-of-turn token is predicted, and counted among the tokens; it is no text, and has no bytes.
    """
    answers = [[label for label in row.labels[1:] if label != IGNORE] for row in rows]
    decoded = [
        tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False) for answer in answers
    ]
    return TextLosses(
        nll=_row_losses(model, rows),
        tokens=np.array([len(answer) for answer in answers], dtype=np.int64),
        bytes=np.array([len(text.encode()) for text in decoded], dtype=np.int64),
    )


def _ratio_standard_error(changes: npt.NDArray[np.float64], tokens: npt.NDArray[np.int64]) -> float | None:
    """Standard error of ``changes.sum() / tokens.sum()``; None where one text shows no spread."""
    count = len(tokens)
    if count < 2:
        return None
    residuals = changes - changes.sum() / tokens.sum() * tokens
    return float(np.sqrt(count / (count - 1) * np.square(residuals).sum()) / tokens.sum())


@torch.no_grad()
def _row_losses(model: PreTrainedModel, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    """Summed loss of each row's labels; rows of similar length are computed together."""
    losses = np.zeros(len(rows))
    training = model.training
    model.eval()
    for batch in _batches([len(row.input_ids) for row in rows]):
        tensors = collate([rows[index] for index in batch], pad_id=0)
        summed = row_losses(model, {name: tensor.to(model.device) for name, tensor in tensors.items()})
        losses[batch] = summed.cpu().double().numpy()
    model.train(training)
    return losses


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Cuts rows, shortest first, into batches of at most ``_BATCH_TOKENS`` with padding, or of one row."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches

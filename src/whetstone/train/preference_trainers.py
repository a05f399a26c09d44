"""TRL's trainers on our token ids, in our order, counted, guarded and restartable as our own is.

Notable: nothing is encoded here. TRL takes ready ids for DPO where its preparation is left out, for ORPO where its
tokenising is replaced, and for GRPO where the prompts of a batch are ids. Nothing is sent, and nothing is written but
our checkpoints.
"""

# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import torch
from peft import PeftModel
from torch.utils.data import Sampler

from whetstone.errors import UserError
from whetstone.train.batch import IGNORE
from whetstone.train.order import RowOrder, RowSampler
from whetstone.train.recorder import Counters
from whetstone.train.supervise import Supervised

try:
    with warnings.catch_warnings():
        # TRL says that ORPO is experimental; it is pinned, and tested here.
        warnings.simplefilter("ignore")
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer
except ImportError as error:
    raise UserError(
        f"tune.method: dpo, orpo and grpo need TRL ({error}); pip install 'whetstone[preference]'"
    ) from None

__all__ = ["DPO", "GRPO", "ORPO", "DPOConfig", "GRPOConfig", "ORPOConfig", "OnOurIds", "OnPairs", "Pair"]

Pair = dict[str, list[int]]
"""``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""


class OnOurIds(Supervised):
    """What the three trainers below have in common: our order, our counters and guard, nothing sent.

    Attributes:
        order: Which rows each optimiser step learns.
        counters: Of tokens so far; those learned from are the tokens of answers.
    """

    def __init__(self, order: RowOrder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order = order
        self.counters = Counters(loss_tokens={"task": 0})
        self._step_loss = 0.0
        self._rows: Iterator[list[int]] | None = None

    def _send_telemetry(self) -> None:
        """TRL would report each run to its authors."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return RowSampler(self.order, self.args.max_steps)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's micro-batch; the losses of a step add up to its mean."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._step_loss += float(loss)
        return loss

    def step_summary(self) -> tuple[float, list[str]]:
        """The mean loss of the step whose gradient is there, and the ids of its examples."""
        if self._rows is None:
            self._rows = self.order.batches(self.state.global_step)
        examples = list(dict.fromkeys(self.order.rows[row].example for row in next(self._rows)))
        loss, self._step_loss = self._step_loss, 0.0
        return loss, examples

    def _count(self, row_tokens: int, computed_tokens: int, loss_tokens: int) -> None:
        self.counters.row_tokens += row_tokens
        self.counters.computed_tokens += computed_tokens
        self.counters.loss_tokens["task"] += loss_tokens

    def _forget_reference_adapter(self, model: PeftModel) -> None:
        """TRL copies the adapter, to have a reference; the base without any is the same one, for nothing."""
        if "ref" in model.peft_config:
            model.delete_adapter("ref")


class OnPairs(OnOurIds):
    """A trainer whose loss is a mean over pairs of answers, which can be measured on others, too."""

    @torch.no_grad()
    def mean_loss(self, pairs: Sequence[Pair]) -> float:
        """The mean loss of a pair; similar lengths together, no random number drawn."""
        self.model.eval()
        ordered = sorted(pairs, key=lambda pair: sum(map(len, pair.values())))
        size, total = self.args.per_device_train_batch_size, 0.0
        for start in range(0, len(ordered), size):
            batch = ordered[start : start + size]
            inputs = self._prepare_inputs(self.data_collator(list(map(self._features, batch))))
            with self.compute_loss_context_manager():
                total += float(self._uncounted_loss(inputs)) * len(batch)
        self.model.train()
        return total / len(pairs)

    def _features(self, pair: Pair) -> Pair:
        """A pair as the collator takes it."""
        return pair

    def _uncounted_loss(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The mean loss of a batch, which leaves no trace in counters and logs."""
        raise NotImplementedError


class DPO(OnPairs, DPOTrainer):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290)."""

    def __init__(self, order: RowOrder, **kwargs: Any) -> None:
        super().__init__(order, **kwargs)
        self._forget_reference_adapter(kwargs["model"])

    def _prepare_dataset(self, dataset: datasets.Dataset, *args: Any) -> datasets.Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, with its tokens counted; the reference is computed, too."""
        ids, mask, answers = (inputs[name] for name in ("input_ids", "attention_mask", "completion_mask"))
        self._count(int(mask.sum()), 2 * ids.numel(), int(answers.sum()))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _uncounted_loss(self, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = super().compute_loss(self.model, inputs)
        self._metrics["eval"].clear()
        return loss


class ORPO(OnPairs, ORPOTrainer):
    """Odds-ratio preference optimisation (Hong et al. 2024, arXiv:2403.07691)."""

    def __init__(self, order: RowOrder, **kwargs: Any) -> None:
        datasets.disable_progress_bars()  # three of them, for work that is nothing
        super().__init__(order, **kwargs)

    def tokenize_row(self, feature: Pair, model: Any = None) -> Pair:
        """Ids as TRL's collator takes them; nothing is encoded."""
        prompt = feature["prompt_ids"]
        row: Pair = {}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"]
            row[f"{side}_input_ids"] = [*prompt, *answer]
            row[f"{side}_attention_mask"] = [1] * (len(prompt) + len(answer))
            row[f"{side}_labels"] = [IGNORE] * len(prompt) + answer
        return row

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[Any, ...]:
        """TRL's, but that the chosen answer alone is learned, as in equation 6 of the paper, and not its prompt."""
        forward: tuple[Any, ...] = super().concatenated_forward(model, batch)
        chosen, rejected, chosen_logits, rejected_logits, _, *more = forward
        return chosen, rejected, chosen_logits, rejected_logits, -chosen.mean(), *more

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, with its tokens counted; both sides are padded to the longer one."""
        masks = [inputs[f"{side}_attention_mask"] for side in ("chosen", "rejected")]
        answers = sum(int((inputs[f"{side}_labels"] != IGNORE).sum()) for side in ("chosen", "rejected"))
        width = max(mask.shape[1] for mask in masks)
        self._count(sum(int(mask.sum()) for mask in masks), sum(len(mask) for mask in masks) * width, answers)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _features(self, pair: Pair) -> Pair:
        return self.tokenize_row(pair)

    def _uncounted_loss(self, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = self.get_batch_loss_metrics(self.model, inputs, "eval")[0]
        return loss


class GRPO(OnOurIds, GRPOTrainer):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300); answers are drawn at each step."""

    def __init__(self, order: RowOrder, stop_ids: Sequence[int], **kwargs: Any) -> None:
        super().__init__(order, **kwargs)
        self.eos_token_ids = list(stop_ids)
        self._forget_reference_adapter(kwargs["model"])

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        repeats = self.args.gradient_accumulation_steps
        generations = self.args.per_device_train_batch_size * repeats // self.order.step_rows
        return _Repeated(self.order, self.args.max_steps, generations, repeats)

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, with its tokens counted.

        An answer goes through the layers when it is drawn, its last token excepted, when it is learned, and once more
        where the divergence from the base counts.
        """
        masks = inputs["prompt_mask"], inputs["completion_mask"]
        size = sum(mask.numel() for mask in masks)
        drawn, learned = size - len(masks[0]), size * (1 if self.beta == 0 else 2)
        self._count(sum(int(mask.sum()) for mask in masks), drawn + learned, int(masks[1].sum()))
        return super().compute_loss(model, inputs, *args, **kwargs)


class _Repeated(Sampler[int]):
    """Every prompt of a step as often as it is answered, and the whole step again for each of its micro-batches.

    TRL draws the answers of a step at its first micro-batch and takes the later ones out of them.
    """

    def __init__(self, order: RowOrder, steps: int, generations: int, repeats: int) -> None:
        self._order, self._steps, self._generations, self._repeats = order, steps, generations, repeats

    def __len__(self) -> int:
        return self._steps * self._order.step_rows * self._generations * self._repeats

    def __iter__(self) -> Iterator[int]:
        for _, rows in zip(range(self._steps), self._order.batches(), strict=False):
            for _ in range(self._repeats):
                for row in rows:
                    yield from [row] * self._generations

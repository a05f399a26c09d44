"""LoRA adapters through PEFT: put on before training, saved with the tokenizer, put on again to judge."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import PreTrainedModel

from whetstone.errors import UserError
from whetstone.tune_section import Tune

__all__ = ["add_adapter", "load_adapter"]


def add_adapter(model: PreTrainedModel, tune: Tune) -> PeftModel:
    """Wraps a model in a fresh LoRA adapter (Hu et al. 2021, arXiv:2106.09685); only the adapter trains.

    The adapter's weights are float32, whatever the type of the base: a step of the optimiser is often smaller than what
    bfloat16 can add to a weight. The base may be quantised.

    Raises:
        UserError: The model has no module of the names in ``tune.targets``.
    """
    targets = tune.targets if isinstance(tune.targets, str) else list(tune.targets)
    config = LoraConfig(
        r=tune.rank,
        lora_alpha=tune.alpha,
        lora_dropout=tune.dropout,
        target_modules=targets,
        use_dora=tune.dora,
        use_rslora=tune.rslora,
        task_type="CAUSAL_LM",
    )
    try:
        with _without_deprecations():
            return get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise UserError(f"tune.targets: {error}; name linear layers of this model, or use all-linear") from None


def load_adapter(model: PreTrainedModel | PeftModel, folder: Path, *, name: str = "default") -> PeftModel:
    """Puts a saved adapter on a model, or one more on a model that has some.

    ``disable_adapter()`` gives the base back without a second copy.

    Raises:
        UserError: The adapter was made for another model, or cannot be read.
    """
    try:
        with _without_deprecations():
            if isinstance(model, PeftModel):
                model.load_adapter(folder, adapter_name=name, is_trainable=False, use_safetensors=True)
                return model.eval()
            options = {"is_trainable": False, "use_safetensors": True}
            return PeftModel.from_pretrained(model, folder, adapter_name=name, **options).eval()
    except (OSError, TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: does not fit the base model ({reason}); give an adapter made for it") from None


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """PEFT reads a property under the name that transformers has just deprecated; nobody here can mend that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield

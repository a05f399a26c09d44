"""How long an experiment will train: a few real steps on weights that are thrown away."""

from collections.abc import Callable

from transformers import PreTrainedModel

from whetstone.experiment import Experiment
from whetstone.models.device import choose_device
from whetstone.models.load import load_weights, locate
from whetstone.models.scratch import new_model
from whetstone.train.check import Checked
from whetstone.train.probe import SpeedEstimate, probe_speed
from whetstone.train.rows import rows_of_run
from whetstone.train.tune import trainable

__all__ = ["measure_speed"]


def measure_speed(experiment: Experiment, checked: Checked, say: Callable[[str], None]) -> SpeedEstimate:
    """Loads the weights, trains a few steps as the experiment would, and forgets them.

    Args:
        experiment: What is to be trained.
        checked: Its examples, in which nothing stops training.
        say: Told, in one line each, what is being done.

    Raises:
        UserError: The weights cannot be loaded.
    """
    say("loading the weights")
    model = _model(experiment, checked)
    say("rendering the rows")
    order = rows_of_run(experiment, checked).order(experiment)
    say("training three steps, to be thrown away")
    return probe_speed(
        trainable(model, experiment.tune),
        order,
        experiment.tune,
        bfloat16=experiment.model.dtype == "bfloat16",
    )


def _model(experiment: Experiment, checked: Checked) -> PreTrainedModel:
    section, device = experiment.model, choose_device(experiment.model.device)
    if section.scratch is not None:
        return new_model(section.scratch, checked.template.tokenizer, experiment.tune.seed).to(device)
    if section.base is None:
        raise AssertionError("an experiment has a base or a shape")
    dtype = section.dtype if experiment.tune.method == "lora" else "float32"
    return load_weights(locate(section.base), dtype=dtype, device=device)

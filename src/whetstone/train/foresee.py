"""How long an experiment will train: a few real steps on weights that are thrown away."""

from collections.abc import Callable

from transformers import PreTrainedModel

from whetstone.experiment import Experiment
from whetstone.models.device import choose_device
from whetstone.models.load import locate
from whetstone.models.scratch import new_model
from whetstone.train.check import Checked
from whetstone.train.prepare import prepare
from whetstone.train.probe import SpeedEstimate, probe_speed
from whetstone.train.rows import rows_of_run
from whetstone.train.settings import Settings, load_settled, settle

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
    model, settings = _load(experiment, checked)
    say("rendering the rows")
    order = rows_of_run(experiment, checked).order(experiment)
    say("training three steps, to be thrown away")
    return probe_speed(prepare(model, experiment.tune, settings), order, experiment.tune, settings)


def _load(experiment: Experiment, checked: Checked) -> tuple[PreTrainedModel, Settings]:
    section, device = experiment.model, choose_device(experiment.model.device)
    if section.scratch is not None:
        model = new_model(section.scratch, checked.template.tokenizer, experiment.tune.seed)
        settings = settle(experiment, device, model.config)
        model.set_attn_implementation(settings.attention)
        return model.to(device), settings
    if section.base is None:
        raise AssertionError("an experiment has a base or a shape")
    return load_settled(locate(section.base), experiment, device)

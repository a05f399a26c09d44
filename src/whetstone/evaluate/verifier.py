"""A metric as the verifier of best-of-n: the answer to give is the one that scores best.

Notable: a metric that knows the references picks the best answer with their help. That shows what a model could reach
(an upper bound, pass@n), and is never how an arm is judged.
"""

from collections.abc import Callable

from whetstone.data.example import Example
from whetstone.engine.api import Completion
from whetstone.errors import UserError
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import TUNED, Sample

__all__ = ["verifier"]


def verifier(metric: Metric, example: Example) -> Callable[[Completion], float]:
    """Gives the function that :func:`whetstone.engine.several.best_of_n` scores answers to an example with.

    Args:
        metric: One with a better direction.
        example: What is asked.

    Returns:
        A score, the higher the better; answers that the metric does not apply to, and failed ones, come last.

    Raises:
        UserError: The metric only describes.
    """
    if metric.direction == "neutral":
        raise UserError(f"metric '{metric.name}' has no better direction; take one that has, such as exact_match")
    sign = 1.0 if metric.direction == "higher" else -1.0

    def score(completion: Completion) -> float:
        if completion.finish_reason not in ("stop", "length"):
            return float("-inf")
        found = metric.score(example, _sample(example, completion))
        return float("-inf") if found is None else sign * found

    return score


def _sample(example: Example, completion: Completion) -> Sample:
    return Sample(
        example=example.id,
        arm=TUNED,
        judgement="",
        prompt_hash="",
        prompt_tokens=completion.usage.prompt_tokens,
        text=completion.text.strip(),
        token_ids=completion.token_ids,
        finish_reason="stop" if completion.finish_reason == "stop" else "length",
    )

"""Drawing the next token."""

import torch

from whetstone.engine.api import Sampling

__all__ = ["choose_token"]


def choose_token(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draws one token from the logits ``(vocabulary,)`` of one sequence.

    Logits are divided by the temperature, which must not be 0, and the smallest set of tokens whose probability reaches
    ``top_p`` is drawn from (Holtzman et al. 2020, arXiv:1904.09751).

    Args:
        logits: On any device.
        sampling: Temperature and top-p.
        generator: The sequence's own random stream, on the CPU.
    """
    probabilities = torch.softmax(logits.float().cpu() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, ids = probabilities.sort(descending=True)
        # A token stays when the mass before it has not reached top_p; the most likely one always does.
        kept = ordered * ((ordered.cumsum(0) - ordered) < sampling.top_p)
        return int(ids[torch.multinomial(kept, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))

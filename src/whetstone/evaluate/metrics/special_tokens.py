"""Does the answer show the marks that only a template should write?"""

import re

from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["SPECIAL_TOKEN_LEAK"]

_MARK = re.compile(
    r"<\|[^\s<>|]{1,40}\|>"
    r"|<\uff5c[^\s<>\uff5c]{1,40}\uff5c>"
    r"|</?s>|<(?:bos|eos|pad|unk|mask|sep|cls)>|\[(?:BOS|EOS|PAD|UNK|MASK|SEP|CLS)\]"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>"
    r"|^#{2,3} ?(?:Instruction|Input|Response)s?\b",
    re.MULTILINE,
)


def _special_token_leak(example: Example, sample: Sample) -> float:
    leaked = set(_MARK.findall(sample.text))
    if not leaked:
        return 0.0
    given = (example.source, *example.references, *(turn.content for turn in example.messages))
    return float(any(all(mark not in text for text in given) for mark in leaked))


SPECIAL_TOKEN_LEAK = Metric(
    name="special_token_leak",
    title="Special token leak",
    unit="share",
    direction="lower",
    definition=(
        "The answer's text holds what reads as a mark of a template and stands in neither the prompt nor a reference: "
        "<|...|>, <s>, </s>, <bos>, <eos>, <pad>, <unk> and their like in square brackets, [INST], <<SYS>>, "
        "<start_of_turn>, <end_of_turn>, or a line that begins ### Instruction, ### Input or ### Response."
    ),
    score=_special_token_leak,
)

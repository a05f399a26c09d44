"""What can be wrong with a row of tokens, and how it is said."""

from typing import NamedTuple

from whetstone.data.finding import Severity
from whetstone.data_section import FindingCode

__all__ = ["SAID", "Fault"]


class Fault(NamedTuple):
    """One fault of one row; the detail says where and with which tokens."""

    code: FindingCode
    severity: Severity
    detail: str


SAID: dict[tuple[FindingCode, Severity], tuple[str, str]] = {
    ("mask-empty", "error"): (
        "nothing is learned: every label is masked",
        "Give the example an answer, or raise data.max_tokens so that the answer is not cut off.",
    ),
    ("mask-wrong", "error"): (
        "what is learned is not exactly the answer",
        "Labels have to be the input ids over the answer, and masked over the prompt.",
    ),
    ("end-of-turn-not-learned", "error"): (
        "the end of the turn is not learned, so the model would not stop",
        "The end-of-turn token has to be the last token and labelled; masking every pad token masks it where pad and "
        "end are one token.",
    ),
    ("end-of-turn-does-not-stop", "error"): (
        "the learned end of the turn does not stop generation",
        "Set model.template to one whose end of turn is a token that the engine stops at.",
    ),
    ("end-of-turn-does-not-stop", "warning"): (
        "the model's generation_config.json does not name the learned end of the turn; other servers would not stop",
        "Add the token's id to eos_token_id in generation_config.json before you serve the model elsewhere.",
    ),
    ("start-doubled", "error"): (
        "the sequence starts with the same special token twice",
        "Take bos_token out of the chat template, or tokenise rendered text with add_special_tokens=False.",
    ),
    ("start-doubled", "note"): (
        "a server that renders to text and tokenises that with default settings doubles the start token",
        "When you serve the model elsewhere, tokenise rendered prompts with add_special_tokens=False.",
    ),
    ("stages-differ", "error"): (
        "training, evaluation and serving give different ids for one prompt",
        "Use the template that is saved beside the weights everywhere; set model.template before training, not after.",
    ),
    ("text-changed", "error"): (
        "the ids do not decode to the example's text",
        "The template changes the text (trims, escapes, replaces); set model.template to one that keeps it.",
    ),
    ("text-changed", "warning"): (
        "the tokenizer normalises the text, so the model can never say it exactly",
        "Normalise the references the same way, or use a model whose tokenizer keeps the text.",
    ),
    ("special-token-in-text", "error"): (
        "text of the example became a special token, so content can close a turn",
        "Remove the token's text from the example, or tokenise content with split_special_tokens=True.",
    ),
    ("special-token-in-text", "warning"): (
        "text reads as a special token; it is kept as text here, but another server may take it for the end of a turn",
        "Remove the token's text from the example unless it is meant.",
    ),
    ("unknown-token", "error"): (
        "the model would learn to say the unknown token",
        "Replace the characters that the tokenizer does not know, or use a model whose tokenizer has them.",
    ),
    ("unknown-token", "warning"): (
        "the tokenizer does not know some of the prompt, and the model cannot see it",
        "Replace the characters that the tokenizer does not know, or use a model whose tokenizer has them.",
    ),
}
"""What is wrong and the mend, for each fault."""

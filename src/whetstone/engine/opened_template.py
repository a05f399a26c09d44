"""The template that a model is asked with: the one it was tuned with, before any other."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.models.load import load_template
from whetstone.models.resolve import Resolved

__all__ = ["saved_tokenizer", "template_of"]

_AUTO = "auto"


def template_of(resolved: Resolved, choice: str) -> Template:
    """The template of a model in a folder.

    Args:
        resolved: The model.
        choice: ``auto`` is the template that the model was tuned with, else its own.

    Raises:
        UserError: There is none, or it is not the one that the model's run recorded.
    """
    if choice != _AUTO:
        return load_template(resolved.path, choice)[0]
    if resolved.tokenizer is None:
        template, _ = load_template(resolved.path, resolved.template)
    else:
        template = Template(saved_tokenizer(resolved.tokenizer), _AUTO)
    if resolved.template_hash not in (None, template.hash):
        where = resolved.tokenizer or resolved.path
        raise UserError(f"{where}: the chat template changed since tuning; restore it, or tune --fresh")
    return template


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder as it was saved; the classes of some architectures would put more over it.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # the parser, which is written in Rust, raises what is nothing more than an Exception
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: its tokenizer cannot be read ({reason}); restore tokenizer.json") from None

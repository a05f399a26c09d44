"""The tokenizer as llama.cpp has it, for servers that encode text themselves.

llama.cpp knows two kinds of BPE: over bytes, with a name for how text is split first, and the SentencePiece kind, with
a score for each token. Both are read from ``tokenizer.json``.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gguf import GGUFWriter, TokenType

from whetstone.data.template import Template
from whetstone.models.gguf_architecture import UnsupportedError

__all__ = ["END_IDS_KEY", "write_vocabulary"]

END_IDS_KEY = "whetstone.end_token_ids"
"""All tokens that end generation, separated by spaces; GGUF itself has places for three."""

_GPT2 = "ByteLevel"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_CASED_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST

_PRE_TOKENIZERS = {
    (_GPT2,): "gpt-2",
    ("Digits", _GPT2): "smollm",
    (_LLAMA3,): "llama-bpe",
    (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST,): "qwen2",
    ("|".join(_CASED) + r"|\p{N}" + _CASED_REST,): "tekken",
    (f"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?" + r"|\p{N}{1,3}" + _CASED_REST,): "gpt-4o",
}
"""How text is split before bytes are paired, and llama.cpp's name for it (``src/llama-vocab.cpp``)."""

_WHOLE_WORDS = ("llama-bpe", "tekken")
"""Under these names a word that is a token is not split, whatever its merges say."""


def write_vocabulary(writer: GGUFWriter, template: Template, end_ids: Sequence[int], size: int) -> None:
    """Writes tokens, merges or scores, special tokens and the chat template.

    BOS is never added to a prompt: the template says where it stands, in training as in serving.

    Args:
        writer: Of the file.
        template: With the tokenizer.
        end_ids: What the model's own generation settings end with.
        size: How many tokens have an embedding; names are made up for those that the tokenizer does not have.

    Raises:
        UnsupportedError: The tokenizer is of a kind that llama.cpp has no name for.
    """
    tokenizer = json.loads(template.tokenizer.backend_tokenizer.to_str())
    model = tokenizer["model"]
    if model["type"] != "BPE":
        raise UnsupportedError(f"the tokenizer is {model['type']}; only BPE can be written")
    tokens, types = _tokens(template, model, size)
    if model["byte_fallback"]:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, model))
        writer.add_add_space_prefix(_prepends_space(tokenizer))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pre_tokenizer(tokenizer))
        writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
        writer.add_add_space_prefix(any(step.get("add_prefix_space", False) for step in _steps(tokenizer)))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _write_special_tokens(writer, template, end_ids)


def _tokens(template: Template, model: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """The text and the type of every token, in the order of their ids; each text is there once."""
    names = {token_id: name for name, token_id in template.vocabulary().items()}
    added = template.tokenizer.added_tokens_decoder
    tokens, types = [], []
    for token_id in range(size):
        name, kind = names.get(token_id, f"[PAD{token_id}]"), TokenType.NORMAL
        if token_id not in names:
            kind = TokenType.UNUSED
        elif name == model["unk_token"]:
            kind = TokenType.UNKNOWN
        elif token_id in added:
            kind = TokenType.CONTROL if added[token_id].special else TokenType.USER_DEFINED
        elif model["byte_fallback"] and len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            kind = TokenType.BYTE
        if kind == TokenType.USER_DEFINED and model["byte_fallback"] and "▁" in name:
            # llama.cpp looks for these in the text before it writes spaces as lower blocks.
            spaced = name.replace("▁", " ")
            name = spaced if spaced not in template.vocabulary() else name
        tokens.append(name)
        types.append(int(kind))
    return tokens, types


def _scores(tokens: Sequence[str], model: dict[str, Any]) -> list[float]:
    """The later a token is merged, the lower; llama.cpp merges the pair first whose token scores highest."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(model["merges"]):
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def _steps(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    """What happens to text before BPE, in order."""

    def flat(step: dict[str, Any] | None, parts: str) -> Iterator[dict[str, Any]]:
        if step is not None and step["type"] == "Sequence":
            for part in step[parts]:
                yield from flat(part, parts)
        elif step is not None:
            yield step

    return [*flat(tokenizer["normalizer"], "normalizers"), *flat(tokenizer["pre_tokenizer"], "pretokenizers")]


def _prepends_space(tokenizer: dict[str, Any]) -> bool:
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in _steps(tokenizer)
    )


def _pre_tokenizer(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how text is split.

    Raises:
        UnsupportedError: It has none.
    """
    splits = []
    for step in _steps(tokenizer):
        if step["type"] == "Split" and "Regex" in step["pattern"]:
            splits.append(step["pattern"]["Regex"])
        elif step["type"] == "Digits" and step["individual_digits"]:
            splits.append("Digits")
        elif step["type"] == "ByteLevel" and step["use_regex"]:
            splits.append(_GPT2)
    name = _PRE_TOKENIZERS.get(tuple(splits))
    if name is None:
        raise UnsupportedError(
            f"the tokenizer splits text by {' then '.join(splits) or 'nothing'}, which llama.cpp cannot"
        )
    if name == "llama-bpe" and not tokenizer["model"].get("ignore_merges", False):
        return "dbrx"  # the same pattern, without the exception for whole words
    return name


def _write_special_tokens(writer: GGUFWriter, template: Template, end_ids: Sequence[int]) -> None:
    tokenizer = template.tokenizer
    ends = list(dict.fromkeys((template.end_of_turn_id, *end_ids)))
    eos = ends[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    others = [end for end in ends if end != eos]
    writer.add_eos_token_id(eos)
    for end, add in zip(others, (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        add(end)
    writer.add_string(END_IDS_KEY, " ".join(map(str, ends)))
    # Without one llama.cpp takes token 11 for BOS and gives its text to the chat template.
    writer.add_bos_token_id(eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    nothing = "{% set bos_token = '' %}" if tokenizer.bos_token is None else ""
    writer.add_chat_template(nothing + tokenizer.chat_template)

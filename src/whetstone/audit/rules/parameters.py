"""Counts of parameters that the stated shape of a decoder cannot have.

Beside terms of order d, a decoder of width d, vocabulary V and feed-forward width f has V d parameters in its
embedding, again as many in an output head that is not tied to it, and in each layer 2 d d + 2 d g for attention (g is d
times the share of key-value heads) and 2 d f (plain) or 3 d f (gated) for the feed-forward block. What the report
leaves open is read both ways; a count is contradicted only if no reading gives it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Section
from whetstone.audit.material import Material
from whetstone.audit.numbers import Number, find_numbers
from whetstone.audit.quantities import find_quantities, name_patterns, row_texts, section_texts

__all__ = ["Shape", "check_parameters", "parameter_counts"]

_SIZE = r"(?:size|dim(?:ension)?s?|width)"
_NAMES = name_patterns(
    {
        "width": rf"(?:(?:hidden|model|embed(?:ding)?|emb)[\s_-]?{_SIZE}|d_?model|n_?embd|dim(?:ension)?)",
        "layers": r"(?:(?:num|n)[\s_](?:hidden_)?layers?|(?:(?:transformer|decoder|hidden)[\s_])?layers|depth"
        r"|transformer blocks)",
        "vocabulary": r"(?:vocab(?:ulary)?(?:[\s_-]?size)?|n_vocab)",
        "heads": r"(?:(?:num|n)_(?:attention_)?heads?|(?:attention\s|query\s)?heads)",
        "kv_heads": r"(?:(?:num|n)_(?:key_value|kv)_heads?|(?:kv|key-value)\sheads)",
        "inner": rf"(?:intermediate[\s_]?size|d_?ff|(?:ffn?|feed-?forward|mlp)(?:[\s_-]?{_SIZE})?)",
        "positions": r"(?:max_position_embeddings|n_positions|n_ctx|block_size|context(?:[\s_](?:length|size|window))?"
        r"|(?:max(?:imum)?[\s_])?seq(?:uence)?[\s_]?len(?:gth)?)",
    }
)
_STATED = re.compile(r"\s?(?:total\s|model\s|learnable\s)?(?:parameters?|params?)(?![a-z])", re.IGNORECASE)
_LABEL = re.compile(
    r"(?<![a-z])(?:total\s|model\s|number of\s|#\s?)?(?:parameters?|params?)(?:\s(?:count|total))?\s?"
    r"(?:\([^()]{0,20}\)\s?)?[:=|]\s?[~≈]?\s?$",
    re.IGNORECASE,
)
_OTHER_COUNT = re.compile(
    r"(?<![a-z])(?:trainable|lora|adapters?|embedding parameters|non-embedding|active|activated|teacher|frozen"
    r"|per layer|tuned|reduction|fewer|hyper-?parameters?|vs|versus|compared|instead|than)(?![a-z])",
    re.IGNORECASE,
)
_OTHER_KIND = re.compile(
    r"(?<![a-z])(?:moe|mixture[\s-]of[\s-]experts|experts?|encoder-decoder|t5|mamba|state[\s-]space|rwkv|conv\w{0,12}"
    r"|lstm|gru|vision|vit|diffusion|multi-?modal|bitlinear|ternary)(?![a-z])",
    re.IGNORECASE,
)
_TOLERANCE = 0.01
"""For norms, biases, and vocabularies that were padded."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder; None is what the report does not say."""

    width: int
    layers: int
    vocabulary: int
    heads: int | None = None
    kv_heads: int | None = None
    inner: int | None = None
    positions: int | None = None


def parameter_counts(shape: Shape) -> dict[str, int]:
    """The number of parameters under each reading of what a shape leaves open.

    Plain blocks are counted with the biases and norms of GPT-2, gated ones without biases and with the norms of Llama.
    Where the feed-forward width is not stated it is 4 d for plain blocks, and 8/3 d or 4 d for gated ones.
    """
    d, layers, vocabulary = shape.width, shape.layers, shape.vocabulary
    share = shape.kv_heads / shape.heads if shape.kv_heads and shape.heads else 1.0
    attention = round(2 * d * d + 2 * d * d * share)
    plain = [shape.inner] if shape.inner else [4 * d]
    gated = [shape.inner] if shape.inner else [8 * d // 3, 4 * d]
    blocks = {("plain", f): attention + 4 * d + 2 * d * f + f + d + 4 * d for f in plain}
    blocks |= {("gated", f): attention + 3 * d * f + 2 * d for f in gated}
    ends = {"tied": vocabulary * d, "untied": 2 * vocabulary * d}
    found: dict[str, int] = {}
    for ((kind, f), block), (end, embedding) in product(blocks.items(), ends.items()):
        total = layers * block + embedding + (2 * d if kind == "plain" else d)
        found[f"{kind} feed-forward of {f:,}, {end} head"] = total
        if kind == "plain" and shape.positions and shape.positions <= _MOST_LEARNED:
            found[f"{kind} feed-forward of {f:,}, {end} head, {shape.positions:,} learned positions"] = (
                total + shape.positions * d
            )
    return found


_MOST_LEARNED = 8192
"""Positions; models with longer contexts compute them."""


def check_parameters(material: Material) -> Iterator[Check]:
    """Judges counts of parameters that stand in the same row, table, block of code or section as one shape."""
    for section in material.report.sections:
        if not _OTHER_KIND.search(section.title):
            yield from _of_section(section)


def _of_section(section: Section) -> Iterator[Check]:
    in_rows = False
    for table in section.tables:
        for row in table.rows:
            texts = [(text, row.line) for text in row_texts(row)]
            shape = _shape(texts) if len(row.cells) > 2 else None
            if shape is not None and not _OTHER_KIND.search(row.text):
                in_rows = True
                yield from _checks(shape, _stated(texts))
    texts = section_texts(section)
    if in_rows or not any(char.isdigit() for text, _ in texts for char in text):
        return
    shape = _shape(texts)
    if shape is not None and not any(_OTHER_KIND.search(text) for text, _ in texts):
        yield from _checks(shape, _stated(texts))


def _shape(texts: list[tuple[str, int]]) -> Shape | None:
    """The one shape that texts state; None where they state none, or more than one value of a size."""
    sizes: dict[str, set[int]] = {}
    for quantity in find_quantities(texts, _NAMES):
        sizes.setdefault(quantity.name, set()).add(quantity.value)
    if not {"width", "layers", "vocabulary"} <= sizes.keys():
        return None
    if any(len(sizes.get(name, ())) > 1 for name in ("width", "layers", "vocabulary", "heads", "kv_heads", "inner")):
        return None
    one = {name: next(iter(values)) if len(values) == 1 else None for name, values in sizes.items()}
    width, layers, vocabulary = one["width"], one["layers"], one["vocabulary"]
    if not width or not layers or not vocabulary or width < 8 or layers > 1000 or vocabulary < 16:
        return None
    others = {name: one.get(name) or None for name in ("heads", "kv_heads", "inner", "positions")}
    return Shape(width, layers, vocabulary, **others)


def _stated(texts: list[tuple[str, int]]) -> Iterator[tuple[Number, Claim]]:
    for text, line in texts:
        if "param" not in text.lower() or _OTHER_COUNT.search(text):
            continue
        for number in find_numbers(text):
            named = _STATED.match(text, number.end) or _LABEL.search(text, max(0, number.start - 60), number.start)
            if named and number.unit == "" and number.value >= 10_000 and number.top == number.value:
                yield number, Claim(line, f"{number.text} parameters", text[:160])


def _checks(shape: Shape, stated: Iterator[tuple[Number, Claim]]) -> Iterator[Check]:
    counts = parameter_counts(shape)
    least, most = min(counts.values()), max(counts.values())
    for number, claim in stated:
        fits = any(number.admits(count * (1 - _TOLERANCE), count * (1 + _TOLERANCE)) for count in counts.values())
        # Without the width of the feed-forward block, or with heads that may share keys, much is possible in between.
        fits = fits or (shape.inner is None and number.admits(0.7 * least, 1.3 * most))
        fits = fits or (shape.kv_heads is None and (shape.heads or 0) >= _GROUPED and number.admits(0.8 * least, most))
        if fits:
            yield Check(claim)
            continue
        nearest = sorted(counts.items(), key=lambda reading: abs(reading[1] - number.value))[:2]
        readings = "; ".join(f"{count:,} with {words}" for words, count in nearest)
        yield Check.failed(
            "parameters-against-shape",
            "contradicted",
            claim,
            f"width {shape.width:,}, {shape.layers} layers, vocabulary {shape.vocabulary:,} give {least:,} to {most:,} "
            f"parameters, nearest {readings}; not {number.text}",
            "count them: sum(p.numel() for p in model.parameters())",
        )


_GROUPED = 16
"""Attention heads, from which on models share keys and values without always saying so."""

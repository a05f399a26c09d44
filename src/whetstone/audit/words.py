"""The words by which rules know what a number means; matched without regard to case, on stripped text."""

import re
from collections.abc import Sequence
from functools import lru_cache

__all__ = [
    "CITED",
    "HIGHER_IS_BETTER",
    "HYPOTHETICAL",
    "INTERVAL",
    "ITEMS",
    "LOWER_IS_BETTER",
    "NOT_A_SHARE",
    "NUMBERED",
    "OF_TARGET",
    "SETTING",
    "SHARE",
    "better_is_higher",
    "says",
]


def _any(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])", re.IGNORECASE)


ITEMS = (
    r"(?:prompts?|examples?|samples?|sentences?|questions?|problems?|items?|cases?|responses?|outputs?|generations?"
    r"|completions?|answers?|queries|query|instances?|conversations?|dialogues?|trials?|pairs?|images?|documents?"
    r"|participants?|users?|raters?|judge?ments?|comparisons?|puzzles?|exercises?|programs?|snippets?|texts?|inputs?"
    r"|predictions?)"
)
"""What a rate is counted over. Tests, checks, files and models are not here: nobody samples them."""

SHARE = _any(
    [
        r"accuracy",
        r"exact[\s-]match(?:es)?",
        r"correct(?:ly|ness)?",
        r"solved?",
        r"pass[\s-]rate",
        r"pass@1",
        r"success(?:ful|fully)?(?:\srate)?",
        r"fail(?:ed|ure|ures)?(?:\srate)?",
        r"error\srate",
        r"wins?",
        r"win[\s-]rate",
        r"won",
        r"preferred",
        r"empty",
        r"refus(?:al|als|ed)",
        r"hallucinat\w{0,5}",
        r"answered",
        r"match(?:ed)?[\s-]rate",
        r"(?:task\s)?completion(?:\srate)?",
        r"resolved",
        r"valid\s(?:json|outputs?|answers?)",
    ]
)
"""What is true or false of each item, so that a rate of it is a count divided by a count."""

NOT_A_SHARE = _any(
    [
        r"(?:f1|bleu|rouge|gleu|meteor|chrf|auc|mrr|ndcg|wer|cer|iou|map)(?:[\s@-]?\w{1,3})?",
        r"bertscore",
        r"similarity",
        r"diversity",
        r"averaged?",
        r"mean",
        r"avg",
        r"tokens?",
        r"words?",
        r"characters?",
        r"confidence",
        r"confident",
        r"precision",
        r"recall",
        r"macro",
        r"micro",
        r"weighted",
        r"balanced",
        r"improve\w{0,6}",
        r"relative",
        r"seeds?",
        r"folds?",
        r"epochs?",
        r"utili[sz]ation",
        r"usage",
        r"memory",
        r"cpu",
        r"gpu",
        r"coverage",
        r"covered",
        r"overlap",
        r"perplexity",
        r"loss",
        r"speed",
        r"faster",
        r"slower",
        r"reduc\w{0,5}",
        r"increas\w{0,4}",
        r"decreas\w{0,4}",
        r"gain\w{0,3}",
        r"boost\w{0,3}",
        r"drop\w{0,4}",
        r"parameters?",
        r"weights?",
        r"points?",
        r"variance",
        r"scores?",
        r"complete",
        r"progress",
    ]
)
"""What makes a percentage something else than a count of items divided by a count of items."""

NUMBERED = re.compile(
    r"(?<![a-z])(?:phase|stage|version|step|sprint|week|day|month|quarter|v|table|figure|fig\.|level|tier|priority"
    r"|question|q|run|option|part|chapter|section|section|line|epoch|model|type|case|task|test|experiment|config|layer"
    r"|fold|seed|round|iteration|turn|sample|example|gpu|wave|group|class)s?[\s#:]{1,2}$",
    re.IGNORECASE,
)
"""Before a number that is a name: "phase 1", "table 3"."""

SETTING = _any(
    [
        r"warm-?up\w{0,3}",
        r"dropout",
        r"decay",
        r"top[\s_-]?p",
        r"split",
        r"splits",
        r"held[\s-]out",
        r"hold-?out",
        r"threshold",
        r"margin",
        r"confidence",
        r"interval",
        r"ci",
        r"quantile",
        r"percentile",
        r"level",
        r"alpha",
        r"replay",
        r"mixed\sin",
        r"subset",
        r"sparsity",
        r"masked",
        r"masking",
        r"allocation",
        r"temperature",
        r"discount",
        r"learning\srate",
        r"rate\slimit",
        r"sampled?\sfrom",
        r"of\s(?:the\s)?(?:data|training|steps|rows|corpus|tokens|parameters|weights)",
    ]
)
"""What makes a percentage a setting and no result."""

OF_TARGET = re.compile(
    r"\s?(?:of|towards?)\s(?:the\s|its\s|our\s|their\s|this\s)?(?:[a-z-]{1,20}\s)?(?:target|goal)(?![a-z])",
    re.IGNORECASE,
)
"""Behind a percentage that is a share of a target."""

HYPOTHETICAL = _any(
    [
        r"target(?:s|ed|ing)?",
        r"goals?",
        r"aim(?:s|ed|ing)?",
        r"expect(?:s|ed|ing|ation|ations)?",
        r"should",
        r"could",
        r"would",
        r"may",
        r"might",
        r"can",
        r"will",
        r"if",
        r"plan(?:s|ned|ning)?",
        r"project(?:ed|ions?)",
        r"estimat(?:e|es|ed|ion|ions)",
        r"potential(?:ly)?",
        r"possible",
        r"possibly",
        r"detect(?:s|ed|ing)?",
        r"roadmap",
        r"assum(?:e|es|ed|ing|ption|ptions)",
        r"hypothe(?:sis|ses|tical)",
        r"example:",
        r"e\.g\.",
        r"criteri(?:on|a)",
        r"acceptance",
        r"budget",
        r"limits?",
        r"must",
        r"needs?",
        r"requires?",
        r"requirements?",
        r"minimum",
        r"maximum",
        r"opportunit(?:y|ies)",
        r"next\ssteps?",
        r"future",
        r"todo",
        r"recommend(?:ed|ation|ations|s)?",
        r"typical(?:ly)?",
        r"usually",
        r"theoretical(?:ly)?",
        r"anticipated?",
        r"predicted",
        r"risks?",
        r"mitigations?",
        r"strategy",
        r"strategies",
        r"alerts?",
        r"trigger(?:s|ed)?",
        r"objectives?",
        r"sla",
        r"slo",
    ]
)
"""What makes a number a wish, a plan or a supposition."""

CITED = re.compile(
    r"\N{WORD JOINER}|\bet al\b|\[[0-9]{1,3}\]|\([A-Z][a-z]{1,20},? (?:19|20)[0-9]{2}\)"
    r"|\b(?:[Pp]apers?|arXiv|[Aa]uthors?|[Pp]ublished|[Ll]iterature|[Aa]ccording to|[Rr]eported by|[Pp]revious work)\b"
)
"""What makes a number somebody else's."""

INTERVAL = re.compile(
    r"±|\+/-|\bC\.?I\.?\b|[Cc]onfidence interval|\b95 ?% (?:interval|CI)|[Ii]nterval|\bWilson\b|[Bb]ootstrap"
    r"|[Ss]tandard error|\bs\.?e\.?\b|\bp ?[=<>≤] ?0?\.[0-9]|McNemar|Fisher|t-test"
    r"|\[ ?[-+]?[0-9.]{1,8} ?%? ?(?:,|;|-|–|to) ?[-+]?[0-9.]{1,8} ?%? ?\]"
    r"|\( ?[-+]?[0-9.]{1,8} ?%? ?(?:-|–|to) ?[-+]?[0-9.]{1,8} ?%? ?\)"
)
"""Says how sure a number is."""

LOWER_IS_BETTER = _any(
    [
        r"loss",
        r"losses",
        r"perplexity",
        r"ppl",
        r"latency",
        r"latencies",
        r"(?:wall|wall-clock|training|inference|generation|response|processing|execution|run|step|startup|load)[\s-]?time",
        r"time",
        r"duration",
        r"ttft",
        r"tpot",
        r"errors?",
        r"error\srate",
        r"wer",
        r"cer",
        r"memory",
        r"vram",
        r"empty",
        r"failures?",
        r"failure\srate",
        r"hallucinat\w{0,6}",
        r"over-?corrections?",
        r"regressions?",
        r"cost",
    ]
)
"""Measures of which less is better."""

HIGHER_IS_BETTER = _any(
    [
        r"accuracy",
        r"exact[\s-]match(?:es)?",
        r"f1(?:[\s-]score)?",
        r"bleu",
        r"gleu",
        r"rouge(?:-[l12])?",
        r"pass@1",
        r"pass[\s-]rate",
        r"success(?:\srate)?",
        r"win[\s-]rate",
        r"throughput",
        r"tokens?\s?(?:/|per)\s?s(?:ec|econd)?",
        r"score",
        r"recall",
        r"precision",
        r"quality",
        r"correct",
    ]
)
"""Measures of which more is better."""


@lru_cache(maxsize=512)
def says(pattern: re.Pattern[str], text: str) -> bool:
    """Whether a text has one of some words; kept, because every number of a sentence asks it again."""
    return pattern.search(text) is not None


def better_is_higher(measure: str) -> bool | None:
    """Whether more of a measure is better; None where its words do not say, or say both."""
    lower, higher = LOWER_IS_BETTER.search(measure), HIGHER_IS_BETTER.search(measure)
    return None if (lower is None) == (higher is None) else higher is not None

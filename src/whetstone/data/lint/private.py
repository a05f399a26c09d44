"""Personal data and secrets that a model would learn by heart.

Each pattern asks for a format that is precise enough for prose to be free of it, and for a check digit where the format
has one; names, addresses and plain numbers are not looked for. What is found is never shown: two characters and ``…``.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whetstone.data.example import Example
from whetstone.data.finding import EXAMPLES_SHOWN, Finding
from whetstone.data.lint.shown import counted, each_text
from whetstone.data_section import FindingCode

__all__ = ["personal_data", "secrets"]


def passes_luhn(number: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in reversed(number) if char.isdigit()]
    return sum(digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits)) % 10 == 0


def passes_mod_97(number: str) -> bool:
    """Whether the check digits of a bank account number are right (ISO 13616, ISO/IEC 7064 MOD 97-10)."""
    plain = number.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _is_anything(_: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of private value: its name, strings without which no text holds it, its pattern, its check."""

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    check: Callable[[str], bool] = _is_anything


PERSONAL = (
    # The valid e-mail address of the HTML standard, with a top-level domain; the names that RFC 2606 reserves for
    # documentation are nobody's, and git@ is a way to fetch code.
    _Kind(
        "e-mail address",
        ("@",),
        re.compile(
            r"(?<![\w.%+-])(?!git@)[A-Za-z0-9_%+][\w.%+-]{0,63}@(?!(?:[\w-]+\.)*example\.(?:com|org|net)\b)"
            r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(?!(?:example|test|invalid|localhost)\b)[A-Za-z]{2,24}\b",
            re.ASCII,
        ),
    ),
    # ITU-T E.164: a plus sign, the country code, at most 15 digits in all. Fewer than ten may be any number.
    _Kind("phone number", ("+",), re.compile(r"(?<![\w+.])\+[1-9](?:[ -]?\(?\d\)?){9,14}(?!\w|[.,-]\d)", re.ASCII)),
    # The North American numbering plan; 555-0100 to 555-0199 are reserved for fiction.
    _Kind(
        "phone number",
        ("-", ")", "."),
        re.compile(
            r"(?<![\w+./-])(?:\([2-9]\d\d\) ?|(?:1[-.])?[2-9]\d\d[-.])(?!555[-.]01)[2-9]\d\d[-.]\d{4}(?![\w-]|\.\d)",
            re.ASCII,
        ),
    ),
    # ISO/IEC 7812: Visa, Mastercard, American Express, Discover, as printed on the card or without spaces.
    _Kind(
        "card number",
        ("4", "5", "3", "2", "6"),
        re.compile(
            r"(?<![\w.,-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)([ -]?)\d{4}\1\d{4}\1\d{4}"
            r"|3[47]\d\d([ -]?)\d{6}\2\d{5})(?![\w-]|[.,]\d)",
            re.ASCII,
        ),
        passes_luhn,
    ),
    # ISO 13616: country, two check digits, up to 30 letters and digits in groups of four.
    _Kind(
        "bank account (IBAN)",
        tuple("0123456789"),
        re.compile(r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)\b", re.ASCII),
        passes_mod_97,
    ),
)

# The formats are those that the issuers publish; the rules of gitleaks (github.com/gitleaks/gitleaks) gather them.
SECRETS = (
    _Kind(
        "AWS access key",
        ("AKIA", "ASIA"),
        re.compile(r"\b(?:AKIA|ASIA)(?![A-Z0-9]{9}EXAMPLE\b)[A-Z0-9]{16}\b", re.ASCII),
    ),
    _Kind(
        "GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{82})\b", re.ASCII),
    ),
    _Kind(
        "Slack token",
        ("xox", "xapp-"),
        re.compile(r"\b(?:xox[abeprs]-[A-Za-z0-9-]{10,}[A-Za-z0-9]|xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]+)", re.ASCII),
    ),
    _Kind(
        "API key",
        ("sk-",),
        re.compile(r"\bsk-(?:ant-[a-z0-9]+-|proj-|svcacct-|admin-)?(?=[\w-]{0,99}\d)[A-Za-z0-9_-]{32,}", re.ASCII),
    ),
    _Kind("Hugging Face token", ("hf_",), re.compile(r"\bhf_[A-Za-z0-9]{34,}\b", re.ASCII)),
    # RFC 7468 and the armour of OpenPGP (RFC 9580).
    _Kind("private key", ("PRIVATE KEY",), re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")),
    # RFC 7519: header and payload are JSON objects in base64url, so both begin with "eyJ".
    _Kind(
        "JSON web token",
        ("eyJ",),
        re.compile(r"(?<![\w-])eyJ[\w-]{8,4096}\.eyJ[\w-]{8,4096}\.[\w-]{8,4096}", re.ASCII),
    ),
)


def personal_data(examples: Sequence[Example]) -> Finding | None:
    """E-mail addresses, phone numbers, card numbers, bank accounts."""
    return _finding("personal-data", examples, PERSONAL, "Replace them with made-up ones, or remove the rows.")


def secrets(examples: Sequence[Example]) -> Finding | None:
    """Keys and tokens that open something."""
    return _finding(
        "secret", examples, SECRETS, "Remove them and revoke them where they were issued; a model can repeat them."
    )


def _finding(code: FindingCode, examples: Sequence[Example], kinds: Sequence[_Kind], mend: str) -> Finding | None:
    count = 0
    last: Example | None = None
    found: Counter[str] = Counter()
    lines: list[str] = []
    for example, text in each_text(examples):
        for kind, value in _values(text, kinds):
            found[kind] += 1
            if example is last:
                continue
            count, last = count + 1, example
            if len(lines) < EXAMPLES_SHOWN:
                lines.append(f"{example.id}: {kind} {value[:2]}…")
    if not count:
        return None
    listed = ", ".join(
        f"{kind} {times:,} times" if times > 1 else f"{kind} once" for kind, times in found.most_common()
    )
    return Finding(
        code=code,
        severity="warning",
        count=count,
        total=len(examples),
        message=f"{counted(count, len(examples))} hold what looks like "
        f"{'a secret' if code == 'secret' else 'personal data'}: {listed}.",
        mend=mend,
        examples=tuple(lines),
    )


def _values(text: str, kinds: Sequence[_Kind]) -> list[tuple[str, str]]:
    return [
        (kind.name, match[0])
        for kind in kinds
        if any(hint in text for hint in kind.hints)
        for match in kind.pattern.finditer(text)
        if kind.check(match[0])
    ]

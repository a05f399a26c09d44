"""Personal data and secrets: found, counted, and never shown. The values are made up here, from parts."""

import time

import pytest

from whetstone.data.example import Example, Message
from whetstone.data.lint.private import passes_luhn, passes_mod_97, personal_data, secrets

PROSE = (
    "In 1984-2020 we sold 1,234,567 books at 12.99 each; call 911 or dial extension 4021.",
    "The ISBN 978-3-16-148410-0 and the part number 4556-7375-8689-9850-1 are on page 10-12.",
    "Temperatures rose from -10 to +12 degrees; profits by +10 000 000, and 5+1234567890 is a sum.",
    "Write to me @home or @anna, see user@example.com or admin@mail.example.org; price 3@2.50.",
    "Order 4111111111111112 of 2024-01-15T10:20:30, tracking 1Z999AA10123456784, version 192.168.100.200.",
    "The result is +12.07938445 or +1234567890.5; clone git@github.com:someone/something.git and read on.",
    "My skype is sk-later and the hf_model runs; AKIA is a prefix and eyJ a beginning; task-oriented and risk-averse.",
    "DE89 is a start, GB 2024 too. The license key is public: -----BEGIN PUBLIC KEY-----.",
    "disk-based-storage-engines-and-many-other-compound-words-in-one-line and mask-and-predict-objectives-for-all",
)
EMAIL, PHONE, LOCAL_PHONE = "anna.smith" + "@" + "mail.co.uk", "+49 " + "30 9018 2000 1", "(212) " + "736-5000"
CARD, AMEX, IBAN = "4111 1111 " + "1111 1111", "3782 822463" + " 10005", "GB82 WEST " + "1234 5698 7654 32"
SECRETS = {
    "AWS access key": "AKIA" + "IOSFODNN7QWERTYU",
    "GitHub token": "ghp_" + "a1B2" * 9,
    "Slack token": "xoxb-" + "123456789012-abcdefGHIJ",
    "API key": "sk-" + "proj-" + "Ab3_" * 12,
    "Hugging Face token": "hf_" + "aBcD" * 8 + "eF",
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "JSON web token": "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJlLWhlcmU",
}


def examples(*texts: str) -> list[Example]:
    return [
        Example(f"e{number}", (Message("user", "Go on."),), (text,), text, f"g{number}")
        for number, text in enumerate((*PROSE, *texts))
    ]


def test_prose_is_left_alone() -> None:
    assert personal_data(examples()) is None
    assert secrets(examples(EMAIL, PHONE, CARD)) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("e-mail address", EMAIL),
        ("phone number", PHONE),
        ("phone number", LOCAL_PHONE),
        ("phone number", "212-" + "736-5000"),
        ("card number", CARD),
        ("card number", CARD.replace(" ", "")),
        ("card number", AMEX),
        ("bank account (IBAN)", IBAN),
        ("bank account (IBAN)", IBAN.replace(" ", "")),
    ],
)
def test_personal_data(kind: str, value: str) -> None:
    found = personal_data(examples(f"Please note: {value}, and thank you."))
    assert found
    assert (found.code, found.count, found.total, found.severity) == ("personal-data", 1, 10, "warning")
    assert found.message.endswith(f"hold what looks like personal data: {kind} once.")
    assert found.examples == (f"e9: {kind} {value[:2]}…",)


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets(kind: str) -> None:
    found = secrets(examples(f"key = '{SECRETS[kind]}'", "nothing"))
    assert found
    assert (found.code, found.count, found.total) == ("secret", 1, 11)
    assert found.message.endswith(f"a secret: {kind} once.")
    assert found.examples == (f"e9: {kind} {SECRETS[kind][:2]}…",)


def test_values_are_counted_by_kind_and_examples_once() -> None:
    found = personal_data(examples(f"{EMAIL} {EMAIL} {CARD}", EMAIL, EMAIL, EMAIL))
    assert found
    assert found.count == 4
    assert "e-mail address 5 times, card number once" in found.message
    assert len(found.examples) == 3
    assert EMAIL not in str(found)


def test_check_digits() -> None:
    assert passes_luhn("4111 1111 1111 1111")
    assert not passes_luhn("4111 1111 1111 1112")
    assert passes_mod_97("GB82 WEST 1234 5698 7654 32")
    assert not passes_mod_97("GB82 WEST 1234 5698 7654 33")


@pytest.mark.parametrize(
    "hostile",
    [
        "eyJ-" * 50_000,
        "eyJaaaaaaaa." * 17_000,
        "eyJ" + "a" * 200_000,
        "%" * 64 + "@" + "a." * 100_000,
        "a@" * 100_000,
        "a.a@a.a" * 30_000,
        "%@a.example" * 18_000,
        "+1" * 100_000,
        "+1 (2) " * 30_000,
        "212-" * 50_000,
        "4111 " * 40_000,
        "DE12" * 50_000,
        "DE12 ABCD " * 20_000,
        "sk-" * 66_000,
        "sk-ant-a" * 25_000,
        "xoxb-" * 40_000,
        "xoxb" + "-" * 200_000,
        "xapp-1-" * 28_000,
        "xapp-1-" + "1" * 200_000,
        "hf_" * 66_000,
        "hf_" + "a" * 200_000 + "_",
        "ghp_" * 50_000,
        "github_pat_" * 18_000,
        "AKIA" * 50_000,
        "-----BEGIN " * 18_000 + "PRIVATE KEY",
        "-----BEGIN " + "A " * 100_000 + "PRIVATE KEY",
        "-" * 200_000 + "PRIVATE KEY",
    ],
    ids=lambda text: text[:16],
)
def test_repeated_hostile_text_takes_no_longer(hostile: str) -> None:
    started = time.process_time()
    personal_data(examples(hostile))
    secrets(examples(hostile))
    assert time.process_time() - started < 1

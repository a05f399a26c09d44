"""The colours of the report, for the page and for its charts, in light and in dark mode.

Every text colour has a contrast of at least 4.5 to 1 on every background it stands on (WCAG 2.2, success criterion
1.4.3).
"""

__all__ = ["DARK", "LIGHT"]

LIGHT = {
    "paper": "#fdfdfb",
    "surface": "#f5f4f0",
    "line": "#e3e1da",
    "ink": "#1a1d22",
    "muted": "#5b616b",
    "accent": "#23568b",
    "accent-soft": "#e6eef7",
    "good": "#176b3c",
    "good-soft": "#e2f3e8",
    "bad": "#ab2620",
    "bad-soft": "#fce8e5",
    "open": "#7d5000",
    "open-soft": "#f9eed6",
}
DARK = {
    "paper": "#131519",
    "surface": "#1b1e24",
    "line": "#30353e",
    "ink": "#e9eaed",
    "muted": "#a4abb6",
    "accent": "#8fbbe8",
    "accent-soft": "#1c2b3b",
    "good": "#6ad297",
    "good-soft": "#15301f",
    "bad": "#ff9489",
    "bad-soft": "#3b1b19",
    "open": "#e8b75a",
    "open-soft": "#332708",
}

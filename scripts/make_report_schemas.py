"""Writes the JSON schemas of the reports, from the models that they are made of, to where the package ships them.

Run as: .venv/bin/python scripts/make_report_schemas.py
"""

import json
from pathlib import Path

from whetstone.report.kinds.schemas import SCHEMAS, schema_of

FOLDER = Path(__file__).parent.parent / "src" / "whetstone" / "report" / "schemas"


def main() -> None:
    """Replaces every schema."""
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        text = json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Looks every pinned version up among the known vulnerabilities, as far as a service that knows them can be reached.

Run as: .venv/bin/python scripts/audit_dependencies.py

Ends with 1 where a version has one. Versions that the service does not know (or all of them, where it cannot be
reached) are counted and said, and are no failure: a commit is not wrong because a network is down.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
_LIMIT_S = 120


def main() -> None:
    """Prints one line for each vulnerability, and a last one with the counts."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"),
        *("--format", "json", "--progress-spinner", "off", "--timeout", "10"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
        dependencies = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        sys.stdout.write("dependencies were not audited: no service that knows vulnerabilities can be reached\n")
        return
    found = [(one["name"], one["version"], fault) for one in dependencies for fault in one.get("vulns", ())]
    for name, version, fault in found:
        mend = ", ".join(fault["fix_versions"]) or "no version mends it yet"
        sys.stdout.write(f"{name} {version}: {fault['id']}: {mend}\n")
    skipped = sum("skip_reason" in one for one in dependencies)
    sys.stdout.write(
        f"dependencies: {len(dependencies) - skipped} audited, {skipped} not known to the service, "
        f"{len(found)} vulnerabilities\n"
    )
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

"""Gates from a file, for samples that are there already: what a pipeline asks of every new run."""

import json
from pathlib import Path

from pydantic import ValidationError

from whetstone.judge_section import HELD_OUT, GateFile, Judge
from whetstone.run import Manifest
from whetstone.yaml_source import YamlSource

__all__ = ["load_gates"]


def load_gates(path: Path, manifest: Manifest) -> Judge:
    """Reads gates, as a rule that replaces the one of a run.

    Args:
        path: A YAML file with what ``judge`` says of gates.
        manifest: Of the run; what was asked, and how, stays as it was.

    Raises:
        UserError: The file cannot be read, holds no gate, or names a suite that the run was not asked.
    """
    source = YamlSource.read(path)
    try:
        file = GateFile.model_validate_json(json.dumps(source.mapping()))
    except ValidationError as error:
        raise source.explain(error, GateFile) from None
    judge = manifest.experiment.judge
    known = (HELD_OUT, *judge.suite_names())
    for key, gates in (("must_improve", file.must_improve), ("must_not_regress", file.must_not_regress)):
        for index, gate in enumerate(gates):
            if gate.suite not in known:
                raise source.problem(
                    [key, index, "suite"], f"'{gate.suite}' was not asked of this run; there: {', '.join(known)}"
                )
    return judge.model_copy(update={name: getattr(file, name) for name in GateFile.model_fields})

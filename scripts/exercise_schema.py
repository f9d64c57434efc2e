"""The JSON schema of exercise.yaml; `python -m scripts.exercise_schema` prints it."""

from __future__ import annotations

import json
import sys

from lab.exercises.format import Exercise


def text() -> str:
    """Returns istio/exercise.schema.json."""
    schema = Exercise.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())

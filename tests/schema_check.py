"""What fldet prints and writes against docs/schemas, where nothing may stand that they lack."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

try:
    import jsonschema
except ImportError:  # of the extra for tests
    jsonschema = None

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def schema_file(name: str) -> Path:
    """Returns the schema of a command, or of a file that is written."""
    return FOLDER / ("-".join(re.split(r"[ -]+", name)) + ".schema.json")


@cache
def _validator(file: Path) -> Any:
    schema = json.loads(file.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    """Returns a schema whose objects have no more than their properties."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(one) for key, one in schema.items()}
    if "required" in closed and "properties" in closed and isinstance(closed["required"], list):
        closed["additionalProperties"] = False
    return closed


def faults(name: str, content: Any) -> list[str]:
    """Returns what does not fit the schema of a command or a file, in words."""
    if jsonschema is None:
        return []
    errors = sorted(_validator(schema_file(name)).iter_errors(content), key=str)
    return [f"{name}: {error.json_path}: {error.message[:300]}" for error in errors]


def check_output(words: list[str], printed: str) -> None:
    """Fails where the JSON that a command has printed does not fit the schema of its command."""
    if "--json" in words and printed.startswith("{"):
        content = json.loads(printed)
        assert faults(content["command"], content) == []

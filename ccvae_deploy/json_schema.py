"""The JSON Schema of `manifest.json`, for readers that are not this package. Prints, writes nothing.

    python -m ccvae_deploy.json_schema > docs/manifest.schema.json

It says the form of every field; that the parts agree with each other (widths, names, shapes) is checked by the model.
"""

import ast
import inspect
import json
import textwrap
from itertools import pairwise
from typing import Any

from . import schema as models


def manifest_schema() -> dict[str, Any]:
    """The schema, draft 2020-12, with the descriptions that stand in `schema.py`."""
    schema = models.Manifest.model_json_schema()
    for name, part in {**schema["$defs"], "Manifest": schema}.items():
        for field, description in _field_docstrings(getattr(models, name)).items():
            part["properties"][field] = {"description": description} | part["properties"][field]
    # the constructor knows its own version; a file must say which one it has
    schema["required"] = ["schema_version", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _field_docstrings(model: type[models.Frozen]) -> dict[str, str]:
    """What stands below each field in the source. pydantic would look for it at every start of a command."""
    (written,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    lines = written.body if isinstance(written, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(text)
        for field, below in pairwise(lines)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(text := below.value.value, str)
    }


def schema_text() -> str:
    """The schema as the file in docs/ holds it."""
    return json.dumps(manifest_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")

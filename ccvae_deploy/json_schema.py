"""The JSON Schema of `manifest.json`, for readers that are not this package. Prints, writes nothing.

    python -m ccvae_deploy.json_schema > docs/manifest.schema.json

It says the form of every field; that the parts agree with each other (widths, names, shapes) is checked by the model.
"""

import json
from typing import Any

from .schema import Manifest


def manifest_schema() -> dict[str, Any]:
    """The schema, draft 2020-12, with the descriptions that stand in `schema.py`."""
    schema = Manifest.model_json_schema()
    # the constructor knows its own version; a file must say which one it has
    schema["required"] = ["schema_version", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """The schema as the file in docs/ holds it."""
    return json.dumps(manifest_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")

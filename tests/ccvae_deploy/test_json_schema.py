"""The published JSON Schema: the file in docs/ is what the model says, and real manifests follow it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccvae_deploy.json_schema import manifest_schema, schema_text

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "tests" / "golden").glob("*/manifest.json"))
TYPES = {"object": dict, "array": list, "string": str, "null": type(None), "number": (int, float), "integer": int}
DEFINITIONS = manifest_schema()["$defs"]


SILENT = {"title", "description", "default", "$schema", "$defs"}


def wrong(value: Any, schema: dict[str, Any], where: str = "manifest") -> str | None:
    """Where a JSON value breaks a part of our schema, by the keywords that ours has; any other keyword is an error."""
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or isinstance(value, bool)):
        return f"{where}: type"
    for keyword in schema.keys() - SILENT - {"type"}:
        if keyword in CHECKS and not CHECKS[keyword](value, schema[keyword], schema):
            return f"{where}: {keyword}"
    if "anyOf" in schema and all(wrong(value, option, where) for option in schema["anyOf"]):
        return f"{where}: anyOf"
    inner = ((part, below, f"{where}.{key}") for key, part, below in parts(value, schema))
    return next(filter(None, (wrong(*one) for one in inner)), None)


def parts(value: Any, schema: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What of a value has a schema of its own."""
    unknown = schema.keys() - SILENT - CHECKS.keys() - {"type", "anyOf", "$ref", "properties", "items", "prefixItems"}
    assert not unknown, f"the test does not know the keywords {unknown}"
    if "$ref" in schema:
        yield "", value, DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    for key in schema.get("properties", {}).keys() & (value.keys() if isinstance(value, dict) else ()):
        yield key, value[key], schema["properties"][key]
    if isinstance(schema.get("additionalProperties"), dict):
        yield from ((key, part, schema["additionalProperties"]) for key, part in value.items())
    if "items" in schema:
        yield from ((str(i), part, schema["items"]) for i, part in enumerate(value))
    yield from ((str(i), value[i], below) for i, below in enumerate(schema.get("prefixItems", ())))


CHECKS: dict[str, Callable[[Any, Any, dict[str, Any]], bool]] = {
    "enum": lambda value, asked, _: value in asked,
    "const": lambda value, asked, _: value == asked,
    "required": lambda value, asked, _: set(asked) <= set(value),
    "additionalProperties": lambda value, asked, schema: bool(asked) or set(value) <= set(schema["properties"]),
    "propertyNames": lambda value, asked, _: all(name in asked["enum"] for name in value),
    "pattern": lambda value, asked, _: re.search(asked, value) is not None,
    "minimum": lambda value, asked, _: value >= asked,
    "maximum": lambda value, asked, _: value <= asked,
    "exclusiveMinimum": lambda value, asked, _: value > asked,
    "minItems": lambda value, asked, _: len(value) >= asked,
    "maxItems": lambda value, asked, _: len(value) <= asked,
    "minLength": lambda value, asked, _: len(value) >= asked,
    "maxLength": lambda value, asked, _: len(value) <= asked,
}


def test_the_published_schema_is_what_the_model_says() -> None:
    published = (ROOT / "docs" / "manifest.schema.json").read_text("utf-8")
    assert published == schema_text(), "run: python -m ccvae_deploy.json_schema > docs/manifest.schema.json"


def test_every_field_is_described() -> None:
    schema = manifest_schema()
    for name, part in {**schema["$defs"], "Manifest": schema}.items():
        assert part["description"], name
        for field, described in part["properties"].items():
            assert described.get("description"), f"{name}.{field}"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_golden_manifests_follow_the_schema(path: Path) -> None:
    assert wrong(json.loads(path.read_text("utf-8")), manifest_schema()) is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"schema_version": 2}, "manifest.schema_version: const"),
        ({"extra": 1}, "manifest: additionalProperties"),
        ({"label_prior": [2]}, "manifest.label_prior.0: maximum"),
        ({"image": {"size": 40}}, "manifest.image..size: enum"),
        ({"files": {"other": {}}}, "manifest.files: propertyNames"),
        ({"labels": {"labels": [{"name": "a\nb"}]}}, "manifest.labels..labels.0..name: pattern"),
    ],
)
def test_the_schema_refuses_what_the_model_refuses(change: dict[str, Any], where: str) -> None:
    content = json.loads(MANIFESTS[0].read_text("utf-8"))
    assert where in (wrong(content | change, manifest_schema()) or "")


def test_the_schema_asks_for_the_version() -> None:
    content = json.loads(MANIFESTS[0].read_text("utf-8"))
    del content["schema_version"]
    assert wrong(content, manifest_schema()) == "manifest: required"

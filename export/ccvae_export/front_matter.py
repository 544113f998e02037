"""The YAML block at the head of a model card, as model hubs read it. Touches nothing."""

import json
from collections.abc import Mapping, Sequence

Value = str | int | float | Mapping[str, "Value"] | Sequence["Value"]


def front_matter(content: Mapping[str, Value]) -> str:
    """Mappings, lists, texts and numbers as block YAML between two rules.

    Texts are double-quoted as JSON quotes them, which is YAML too, so no text can be taken for anything else.
    """
    return "\n".join(["---", *_mapping(content, ""), "---", ""])


def _mapping(content: Mapping[str, Value], indent: str) -> list[str]:
    lines = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", *_mapping(value, indent + "  ")]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            lines += [f"{indent}{name}:", *_list(value, indent)]
        else:
            lines.append(f"{indent}{name}: {json.dumps(value)}")
    return lines


def _list(content: Sequence[Value], indent: str) -> list[str]:
    lines = []
    for value in content:
        if isinstance(value, Mapping):
            first, *rest = _mapping(value, indent + "  ")
            lines += [f"{indent}- {first.lstrip()}", *rest]
        else:
            lines.append(f"{indent}- {json.dumps(value)}")
    return lines

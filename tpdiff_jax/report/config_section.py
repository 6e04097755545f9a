"""Fields of configs and settings as pages list them: group by group, one name and text a row."""

from typing import Any

from tpdiff_jax.report.formats import figure

Groups = list[tuple[str, dict[str, str]]]


def config_groups(config: dict[str, Any]) -> Groups:
    """Return a resolved config, group by group; what stands in no group comes last.

    Args:
        config: content of config.json.
    """
    groups = [(name, field_texts(v)) for name, v in config.items() if isinstance(v, dict)]
    plain = {name: value for name, value in config.items() if not isinstance(value, dict)}
    return groups + ([("", field_texts(plain))] if plain else [])


def field_texts(fields: dict[str, Any]) -> dict[str, str]:
    """Return fields with their values as text.

    Args:
        fields: name -> anything that JSON holds.
    """
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(map(str, value)) + ")"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {entry}" for name, entry in value.items())
    return str(value) if isinstance(value, bool) or value is None else figure(value)

"""A small checker of JSON schemas: as much of the standard as a pack's manifest needs."""

from npgemma.base.errors import CheckpointError

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}


def check(value, schema, place):
    """Hold a value against a schema: type, enum, minimum, required, properties, items.

    Raises
    ------
    CheckpointError
        With the place of the first thing that does not fit.
    """
    if "type" in schema and not is_a(value, schema["type"]):
        raise CheckpointError(f"{place}: came as {value!r:.80}; want {schema['type']}")
    if "enum" in schema and value not in schema["enum"]:
        raise CheckpointError(f"{place}: came as {value!r:.80}; want one of {', '.join(map(str, schema['enum']))}")
    if "minimum" in schema and is_a(value, "number") and value < schema["minimum"]:
        raise CheckpointError(f"{place}: came as {value!r:.80}; want at least {schema['minimum']}")
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                raise CheckpointError(f"{place}: has no {name!r}")
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, each in value.items():
            check(each, known.get(name, others), f"{place}.{name:.80}")
    if isinstance(value, list):
        for number, each in enumerate(value):
            check(each, schema.get("items", {}), f"{place}[{number}]")


def is_a(value, wanted):
    """Tell whether a JSON value is of a type; true and false are no numbers."""
    if wanted in ("integer", "number"):
        return isinstance(value, int if wanted == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[wanted])

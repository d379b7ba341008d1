"""Configs: read, checked, compared, completed."""

from fldet import _compat
from fldet.moved import moved

_compat.install()

__getattr__ = moved(
    __name__,
    {
        "fldet.config.load": (
            *("CONFIGS", "load_config", "find_config", "read_chain", "parse_config"),
            *("format_config", "to_plain", "plain"),
        ),
        "fldet.config.overrides": ("parse_override", "resolve_key"),
    },
)

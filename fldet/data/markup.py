"""XML and YAML of labelling tools: read with bounds, and every value as it is written.

Nothing in such a file is expanded or interpreted: an XML file may declare no entities, tags of
YAML have no effect, and ``no``, ``1e3`` or ``2024-13-45`` are texts.
"""

import codecs
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from fldet.errors import DataError, shorten
from fldet.files import MOST_OF_SETTINGS, MOST_OF_TEXT, decode, read_bytes, read_text

MOST_TAGS = 1_000_000  # of an XML file, those that close counted too
MOST_VALUES = 500_000  # of a YAML file
DEEPEST = 20  # lists in lists of a YAML file

_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?\sencoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
# What Windows saves under these names has more letters than the standard of the name.
_LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
# Encodings of Python that are no character sets; some of them take hours for a megabyte.
_NO_TEXT = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7")

# The libyaml reader is twenty times as fast and comes with PyYAML's own wheels.
_YAML_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def read_xml(path: Path, *, expected: str, most: int = MOST_OF_TEXT) -> ElementTree.Element:
    """Returns the root of an XML file of ``most`` bytes; names of tags without their namespaces.

    Raises:
        DataError: as ``xml_text``; or it is not XML, declares entities, or has too many tags.
    """
    text = xml_text(path, expected=expected, most=most)
    if "<!ENTITY" in text:
        raise DataError(f"{path} declares entities", expected="XML without <!ENTITY ...>")
    if text.count("<") > MOST_TAGS:
        raise DataError(f"{path} has too many tags", expected=f"at most {MOST_TAGS}")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(
            f"{path}:{line}: not XML (column {column}): {error.msg.partition(':')[0]}",
            expected=expected,
        ) from None
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    return root


def xml_text(path: Path, *, expected: str, most: int = MOST_OF_TEXT) -> str:
    """Returns the text of an XML file, in the encoding that it declares."""
    data = read_bytes(path, "annotation file", expected=expected, most=most)
    return decode(data, path, encoding=_xml_encoding(data, path), expected=expected)


def _xml_encoding(data: bytes, path: Path) -> str:
    if data[:2] in (b"<\0", b"\0<"):
        return "utf-16-le" if data[:1] == b"<" else "utf-16-be"
    declared = _ENCODING.match(data.lstrip())
    name = declared[1].decode() if declared else "utf-8"
    try:
        known = codecs.lookup(name).name
        bytes(4).decode(known)  # refuses what makes no text, such as zlib
    except (LookupError, UnicodeError):
        known = "undefined"
    if known in _NO_TEXT:
        raise DataError(
            f"{path}:1: the encoding {name!r} is unknown", expected="utf-8, or gbk, latin-1, ..."
        )
    # .NET declares the encoding of its strings, whatever the file is saved in.
    return "utf-8" if known.startswith(("utf-16", "utf-32")) else _LARGER.get(known, known)


def read_yaml(path: Path, *, expected: str) -> dict[str, Any]:
    """Returns the mapping that a YAML file holds: of texts, lists and mappings of the same.

    An alias is the value itself, not a copy, so that a small file stays small; whoever walks over
    what lies deeper than he needs must count.

    Raises:
        DataError: as ``read_text``; or it is not YAML or no mapping, has a key twice or one that
            is no text, is nested too deep or too large.
    """
    text = read_text(path, "annotation file", expected=expected, most=MOST_OF_SETTINGS)
    try:
        content = _yaml_value(text, path)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed"
        raise DataError(f"{path}:{line}: not YAML: {reason}", expected=expected) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no keys", expected=expected)
    return content


def _yaml_value(text: str, path: Path) -> Any:
    """Returns what a YAML text means, from its events: no call of this goes deeper."""
    documents: list[Any] = []
    containers: list[Any] = [documents]
    keys: list[str | None] = [None]  # of each container: read, and its value not yet
    anchors: dict[str, Any] = {}
    for number, event in enumerate(yaml.parse(text, Loader=_YAML_LOADER)):
        where = f"{path}:{getattr(event.start_mark, 'line', 0) + 1}"
        if number > MOST_VALUES or len(containers) > DEEPEST or len(documents) > 1:
            raise DataError(
                f"{where}: too many values, levels or documents",
                expected=f"one, of at most {MOST_VALUES} values, {DEEPEST} levels deep",
            )
        if isinstance(event, yaml.CollectionEndEvent):
            containers.pop()
            keys.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        if isinstance(event, yaml.ScalarEvent):
            value = event.value
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise DataError(f"{where}: there is no &{event.anchor}", expected="YAML")
            value = anchors[event.anchor]
        anchors[str(event.anchor)] = value
        keys[-1] = _add(containers[-1], keys[-1], value, where)
        if isinstance(event, yaml.CollectionStartEvent):
            containers.append(value)
            keys.append(None)
    return documents[0] if documents else None


def _add(container: Any, key: str | None, value: Any, where: str) -> str | None:
    """Puts a value into a list, or under a key; returns the key that waits for its value."""
    if isinstance(container, list):
        container.append(value)
    elif key is not None:
        container[key] = value
    elif not isinstance(value, str) or value in container:
        raise DataError(
            f"{where}: the key {shorten(value)} stands there twice or is no text",
            expected="each key once",
        )
    else:
        return value
    return None

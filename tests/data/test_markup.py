import pytest

from fldet.data.markup import read_xml, read_yaml
from fldet.errors import DataError


def xml_file(tmp_path, data):
    file = tmp_path / "a.xml"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("declared", "saved"),
    [
        *((name, name) for name in ("gb2312", "GBK", "gb18030", "big5", "Shift_JIS", "euc-kr")),
        *((name, name) for name in ("utf-8", "utf-8-sig", "utf-16", "UTF-16LE", "utf-16-be")),
        ("utf-16", "utf-8"),  # as .NET declares what it saves in UTF-8
        ("gbk", "utf-8-sig"),  # the mark tells
        ("gb2312", "gbk"),
        (None, "utf-8"),
        (None, "utf-16"),
        (None, "utf-16-le"),
    ],
)
def test_xml_in_the_encoding_that_it_declares(tmp_path, declared, saved):
    name = {"euc-kr": "상자", "Shift_JIS": "箱"}.get(saved, "箱子")
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    file = xml_file(tmp_path, f"{head}<a><name>{name}</name></a>".encode(saved))
    assert read_xml(file, expected="").findtext("name") == name


@pytest.mark.parametrize("declared", ["latin-1", "ISO-8859-1", "windows-1252", "cp437", "koi8-r"])
def test_xml_in_one_byte_a_letter(tmp_path, declared):
    letter = "ж" if declared == "koi8-r" else "ü"
    data = f"<?xml version='1.0' encoding='{declared}' ?><a>{letter}</a>".encode(declared)
    assert read_xml(xml_file(tmp_path, data), expected="").text == letter


BOMB = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(9))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<a>\n<b>", r"a.xml:2: not XML \(column 3\)"),
        (b"", "a.xml:1: not XML"),
        ("<a>箱子</a>".encode("gbk"), "a.xml:1: not UTF-8"),
        ("<?xml version='1.0' encoding='big5'?>\n<a>\xff</a>".encode("latin-1"), "a.xml:2: not B"),
        (b"<?xml version='1.0' encoding='klingon'?><a/>", "a.xml:1: the encoding 'klingon' is unk"),
        (b"<?xml version='1.0' encoding='zlib'?><a/>", "the encoding 'zlib' is unknown"),
        (b"<?xml version='1.0' encoding='punycode'?><a/>", "the encoding 'punycode' is unknown"),
        (f'<!DOCTYPE a [<!ENTITY a0 "x">{BOMB}]><a>&a9;</a>'.encode(), "declares entities"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "declares entities"),
        (b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://a/">%x;]><a/>', "declares entities"),
        (b"<a>&unknown;</a>", "not XML .* undefined entity"),
        (b"<a>" + b"<b/>" * 10**6 + b"</a>", "too many tags"),
        (b"<a>" * 20_000, "not XML"),
        (b"<a>\0</a>", "not XML"),
    ],
)
def test_xml_that_is_refused(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        read_xml(xml_file(tmp_path, data), expected="")


def test_deep_xml_and_a_document_type_are_harmless(tmp_path):
    data = b'<!DOCTYPE a SYSTEM "a.dtd">' + b"<a>" * 20_000 + b"</a>" * 20_000
    assert read_xml(xml_file(tmp_path, data), expected="").tag == "a"


def test_namespaces_are_taken_off(tmp_path):
    root = read_xml(xml_file(tmp_path, b"<v:a xmlns:v='urn:v'><v:b>1</v:b></v:a>"), expected="")
    assert (root.tag, root.findtext("b")) == ("a", "1")


def yaml_file(tmp_path, text):
    file = tmp_path / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [no, yes, on, off, ~, null, 'no']", ["no", "yes", "on", "off", "~", "null", "no"]),
        ("a: [1e3, 0x10, 0o17, 1_000, 12:30:45, .inf]",
         ["1e3", "0x10", "0o17", "1_000", "12:30:45", ".inf"]),
        ("a: 2024-13-45", "2024-13-45"),
        ("a: !!int xyz", "xyz"),
        ("a: !!python/object/apply:os.system [ls]", ["ls"]),
        ("a: !!binary '%%'", "%%"),
        ("a: {0: x, y: z}", {"0": "x", "y": "z"}),
        ("b: &b [x]\na: *b", ["x"]),
        ("a:", ""),
        ("\ufeffa: b", "b"),
        ("{a: 'b'}", "b"),
    ],
)  # fmt: skip
def test_yaml_is_read_as_it_is_written(tmp_path, text, expected):
    assert read_yaml(yaml_file(tmp_path, text), expected="")["a"] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b,\n- c", "a.yaml:2: not YAML"),
        ("a: b\n\tc: d", "a.yaml:2: not YAML"),
        ("a: *b", "a.yaml:1: there is no &b"),
        ("a: 1\nb: 2\na: 3", "a.yaml:3: the key 'a' stands there twice"),
        ("? [a, b]\n: c", r"a.yaml:1: the key \[\] stands there twice or is no text"),
        ("- a", "holds no keys"),
        ("", "holds no keys"),
        ("a: b\n---\nc: d", "too many values, levels or documents"),
        ("[" * 100_000, "too many values, levels or documents"),
        ("a: " + "{b: " * 30, "too many values, levels or documents"),
        ("a: \0", "a.yaml:1: not YAML"),
        ("a: '\\ud800", "a.yaml:1: not YAML"),
        ("a: 箱子".encode("gbk"), "a.yaml:1: not UTF-8"),
        ("a: " + "b" * 2**20, "too large"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_yaml(yaml_file(tmp_path, text), expected="")


def test_aliases_of_aliases_take_no_room(tmp_path):
    """A thousand million leaves, and a list that is its own first entry."""
    lines = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    content = read_yaml(yaml_file(tmp_path, f"a0: &a0 x\n{lines}b: &b [*b]\n"), expected="")
    assert content["a9"][9][9] is content["a7"]
    assert content["b"][0] is content["b"]

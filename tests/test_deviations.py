"""Every departure from the paper is listed once, and marked where it is made."""

import re

from fldet.config.load import CONFIGS

ROOT = CONFIGS.parent


def marked():
    files = [*(ROOT / "fldet").rglob("*.py"), *CONFIGS.rglob("*.py")]
    text = "\n".join(path.read_text() for path in files)
    return set(re.findall(r"D\d+", " ".join(re.findall(r"DEVIATION\s+(?:# )?(D\d+)", text))))


def listed():
    return re.findall(
        r"^\| (D\d+) \|", (ROOT / "docs/evidence/deviations.md").read_text(), re.MULTILINE
    )


def test_the_list_is_numbered_without_gaps():
    assert listed() == [f"D{number}" for number in range(1, len(listed()) + 1)]


def test_what_is_listed_is_marked_in_code_or_config_and_the_other_way_round():
    assert marked() == set(listed())

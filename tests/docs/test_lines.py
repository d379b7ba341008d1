"""Each command line of README and docs is dealt with, and understood by the command line.

Marked or not, a line of fldet is parsed, and its config loaded with its overrides.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_lines import ELSEWHERE, LINES, MARKED_PAGES, PAGES, PROGRAMS, ROOT, blocks, command_lines
from typer.core import TyperCommand
from typer.main import get_command

from fldet.cli.main import app, expand_lists
from fldet.config.load import find_config, load_config


def test_the_lines_of_readme_and_docs_are_found():
    assert len(LINES) > 120
    texts = {line.text: line for line in LINES}
    assert "fldet config show CONFIG" in texts
    assert texts[
        "find . -name '*.jpg' | fldet predict best.pth - --format jsonl --out listed"
    ].before_pipe
    assert any(line.marked for line in LINES)
    assert not texts["fldet doctor"].marked


@pytest.mark.parametrize("page", PAGES)
def test_an_indented_block_is_commands_or_python(page):
    for line in command_lines(page):
        program = line.text.split(" ")[0]
        assert program in PROGRAMS, f"{line}: name {program} in PROGRAMS"
    for block in blocks(page):
        if (
            not block.language and not block.is_commands and not block.is_fenced
        ) or block.is_script:
            compile(block.text, f"{page}:{block.line}", "exec")


def test_each_line_is_run_here_or_marked_or_run_elsewhere():
    """Lines of fldet are run here unless they are marked; others have to be dealt with."""
    for line in LINES:
        dealt_with = [line.is_run_here, line.marked, line.text in ELSEWHERE]
        assert sum(dealt_with) == 1, (
            f"{line}\nmark it ('# needs COCO', '# needs the network', ...), or name in ELSEWHERE "
            "what runs it"
        )


def test_what_runs_other_lines_is_there():
    texts = {line.text for line in LINES}
    for text, (file, words) in ELSEWHERE.items():
        assert text in texts, f"{text!r} stands in no page any more"
        assert words in (ROOT / file).read_text(), f"{file} has no {words!r}"
    for page, (sentence, _) in MARKED_PAGES.items():
        assert sentence in (ROOT / page).read_text()


# --- every line of fldet, and every `fldet ...` in a sentence, against the command line ---


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, example_plugin: Path) -> Callable[[list[str]], None]:
    """Parses arguments as ``fldet`` does, types of values included, and runs nothing."""
    monkeypatch.setattr(TyperCommand, "invoke", lambda self, ctx: None)
    tree = get_command(app)

    def check(arguments: list[str]) -> None:
        tree.main(expand_lists(arguments), prog_name="fldet", standalone_mode=False)

    return check


def test_every_line_of_fldet_is_understood(parse):
    wrong = []
    for line in LINES:
        if line.arguments is None:
            continue
        try:
            parse(line.arguments)
        except Exception as error:  # Typer's own kinds
            wrong.append(f"{line}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_line_is_not_understood(parse):
    for arguments in (["train", "c.py", "--gpuss", "2"], ["traim", "c.py"], ["train"]):
        with pytest.raises(Exception, match=r"No such|Missing"):
            parse(arguments)
    with pytest.raises(Exception, match="valid integer"):
        parse(["train", "c.py", "--gpus", "many"])


def test_commands_within_sentences_have_the_options_that_they_name(parse):
    wrong = []
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
        for text in re.findall(r"`(fldet [^`]+)`", prose):
            arguments = [word for word in shlex.split(text.replace("\n", " "))[1:] if word != "..."]
            try:
                parse(arguments)
            except Exception as error:
                # arguments may be left out in a sentence, the last value of an option too
                lacks = re.match(r"Missing|Option '\S+' requires an argument", str(error))
                if not lacks and type(error).__name__ not in (
                    "MissingParameter",
                    "NoArgsIsHelpError",
                ):
                    wrong.append(f"{page}: {text}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_the_configs_that_lines_name_exist_and_take_their_overrides(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = set()
    for line in LINES:
        words = line.arguments or []
        overrides = tuple(word for word in words if re.match(r"\+?[a-z_]+(\.\w+)*=", word))
        for word in words:
            key = (word, overrides)
            if not re.match(r"(configs/|fldet::).*\.py$", word) or key in done:
                continue
            done.add(key)
            if words[0] in ("train", "test", "analyze", "benchmark") and overrides:
                load_config(word, overrides)
            else:
                find_config(word)
    assert len(done) > 10


# --- links ---


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"

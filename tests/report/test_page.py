"""The page of a run: its data worked by hand, its text escaped, and itself in a real browser."""

import dataclasses
import json
import math
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from fldet.analysis.errors.collect import TestedData
from fldet.analysis.errors.compute import find_errors
from fldet.analysis.log.read import Series, TrainingLog
from fldet.analysis.loss_cdf.curves import Procedure, Sample, loss_cdf_of
from fldet.analysis.thresholds.result import ClassThreshold, ThresholdAnalysis
from fldet.evaluation.figures import CocoFigures, VocFigures
from fldet.evaluation.ground_truth import GroundTruth
from fldet.pictures.svg import MAX_POINTS, Line, line_chart
from fldet.report.content import (
    STATES,
    Report,
    gallery_data,
    split_of,
    take_pictures,
)
from fldet.report.page import render
from fldet.text import printable

EVIL = "<b onclick=alert(1)>dog</b>&amp;'\""
CAT, DOG = 10, 20
NAMES = {1: "a<img src=x onerror=alert(1)>.png", 2: "b.png", 3: "c</script>.png"}


def box(image, category, x, y, side, score=None):
    one = {"image_id": image, "category_id": category, "bbox": [x, y, side, side]}
    if score is None:
        return {**one, "area": side * side, "iscrowd": 0}
    return {**one, "score": score}


TRUTH = GroundTruth(
    (1, 2, 3),
    {CAT: "cat", DOG: EVIL},
    (
        box(1, CAT, 0, 0, 20),
        box(1, CAT, 0, 40, 15),  # missed
        box(1, DOG, 40, 20, 20),
        box(2, DOG, 10, 10, 20),
    ),
)
FOUND = [
    box(1, CAT, 0, 0, 20, 0.9),
    box(1, CAT, 40, 20, 20, 0.8),  # classification
    box(1, CAT, 60, 0, 10, 0.6),  # background
    box(1, CAT, 62, 50, 8, 0.04),  # below what the gallery keeps
    box(2, DOG, 10, 10, 20, 0.4),
]
LOG = TrainingLog(
    "run",
    1,
    {
        "loss": Series((50, 100, 150), (2.0, math.nan, 1.0)),
        "lr": Series((50, 100, 150), (0.1, 0.1, 0.01)),
    },
    {"AP": Series((100,), (0.25,))},
)
COCO = CocoFigures({"AP": 0.5, "AP_S": math.nan}, {"cat": 0.25, EVIL: math.nan}, 2, 9, "faster")
VOC = VocFigures({"mAP": 0.75}, {"cat": 0.75}, 2, 9, "own", {})


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in NAMES.values():
        (folder / name).parent.mkdir(exist_ok=True)  # the slash of a name makes a folder
        data = cv2.imencode(".png", np.full((60, 80, 3), 128, np.uint8))[1]
        (folder / name).write_bytes(data.tobytes())
    tested = TestedData(TRUTH, FOUND, NAMES, folder)
    return find_errors(tested, num_worst=2, num_random=2, lowest_score=0.05)


@pytest.fixture(scope="module")
def report(analysis):
    pictures, gaps = take_pictures(analysis)
    rng = np.random.default_rng(0)
    procedure = Procedure("c", EVIL, "val", "anchor-class", 1, 0, 10, 90)
    sample = Sample(*(rng.normal(size=n).astype(np.float32) for n in (10, 90)), procedure)
    return Report(
        title=EVIL,
        facts={"config": EVIL},
        compared_with=EVIL,
        changes=((EVIL, EVIL, EVIL),),
        figures=(COCO, VOC),
        log=LOG,
        errors=analysis,
        loss_cdf=loss_cdf_of(sample),
        pictures=pictures,
        gaps=(*gaps, EVIL),
        thresholds=ThresholdAnalysis(
            {EVIL: ClassThreshold(0.375, 0.5, 0.25, 1 / 3, 0.3, 0.4, 8, 4, EVIL)},
            *(EVIL, EVIL, EVIL, 0.5, 0.4, None, {}),
        ),
    )


# --- data ----------------------------------------------------------------------------------------


def test_rows_of_the_gallery(report):
    data = gallery_data(report)
    assert data["classes"] == ["cat", EVIL]
    first, second, third = data["images"]
    assert [one["set"] for one in data["images"]] == ["worst", "random", "random"]
    assert first["name"] == NAMES[1]
    assert first["size"] == (80, 60)
    assert first["objects"] == [[0, 0, 20, 20, 0, 0], [0, 40, 15, 15, 0, 0], [40, 20, 20, 20, 1, 0]]
    kinds = [STATES[row[5]] for row in first["found"]]
    assert kinds == ["correct", "classification", "background"]
    assert [row[6] for row in first["found"]] == [0.9, 0.8, 0.6]
    assert [row[7] for row in first["found"]] == [0, 2, -1]  # what they found or point to
    assert second["found"] == [[10, 10, 20, 20, 1, 0, 0.4, 0]]
    assert third["objects"] == third["found"] == []
    assert first["cost"] == pytest.approx(100 * report.errors.worst[0].cost, abs=1e-3)


def test_images_that_cannot_be_read_are_said(analysis, tmp_path):
    gone = find_errors(TestedData(TRUTH, FOUND, {1: "a.png"}, tmp_path), num_random=1)
    pictures, gaps = take_pictures(gone)
    assert pictures == ()
    assert len(gaps) == 2
    assert "a.png" in gaps[0]


def test_the_sample_is_drawn_from_the_images_that_are_not_the_worst(analysis):
    truth = GroundTruth(
        tuple(range(100)), {CAT: "cat"}, tuple(box(i, CAT, 0, 0, 9) for i in (3, 7))
    )
    found = [box(3, CAT, 0, 0, 9, 0.5)]
    tested = TestedData(truth, found)
    one, again = (find_errors(tested, num_worst=5, num_random=20) for _ in range(2))
    assert [image.image_id for image in one.worst] == [7]  # others cost nothing
    ids = [image.image_id for image in one.others]
    assert len(set(ids)) == 20
    assert 7 not in ids
    assert ids == sorted(ids)
    assert (one.worst, one.others) == (again.worst, again.others)


@pytest.mark.parametrize(("number", "split"), [(0, (0, 0)), (1, (1, 0)), (60, (30, 30))])
def test_half_of_the_gallery_is_the_worst(number, split):
    assert split_of(number) == split


def test_thresholds_of_classes_stand_in_a_table(report):
    page = render(report)
    section = page[page.index('id="thresholds"') : page.index('id="training"')]
    for number in ("0.375", "0.300 to 0.400", "0.500", "0.250", "0.333"):
        assert number in section


# --- charts --------------------------------------------------------------------------------------


def chart(points, **options):
    return line_chart([Line("one", points)], title="t", x_label="x", y_label="y", **options)


def numbers_of(path):
    return [tuple(map(float, pair.split())) for pair in path.removeprefix("M").split("L")]


def test_a_line_lies_where_its_values_are():
    svg = chart([(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)], x_range=(0, 2), y_range=(0, 1))
    (path,) = re.findall(r'class="line s0" d="(M[^"H]*)"', svg)
    assert numbers_of(path) == [(60, 198), (214, 104), (368, 10)]


def test_a_logarithmic_axis_and_its_decades():
    svg = chart([(0.0, 1.0), (1.0, 100.0), (2.0, 10000.0)], logarithmic=True)
    (path,) = re.findall(r'class="line s0" d="(M[^"H]*)"', svg)
    assert [y for _, y in numbers_of(path)] == [198, 104, 10]
    assert re.findall(r'class="end">([^<]*)<', svg) == ["1", "10", "100", "1,000", "10,000"]


def test_labels_of_small_and_large_numbers():
    svg = chart([(0.0, 0.0), (1e5, 0.0017)])
    assert re.findall(r'class="end">([^<]*)<', svg) == ["0", "5e-4", "1e-3", "1.5e-3", "2e-3"]
    across = re.findall(r'class="mid">([^<]*)<', svg)
    assert across[:6] == ["0", "20,000", "40,000", "60,000", "80,000", "100,000"]


def test_a_gap_where_a_value_is_not_finite_and_a_dot_where_one_is_alone():
    svg = chart([(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0)])
    paths = re.findall(r'class="line s0" d="(M[^"H]*)"', svg)
    assert [len(numbers_of(path)) for path in paths] == [2]
    assert svg.count("<circle") == 1


def test_a_constant_can_be_drawn():
    assert 'class="line s0"' in chart([(1.0, 0.0), (2.0, 0.0)])


def test_long_curves_are_averaged_in_groups():
    svg = chart([(float(i), float(i % 2)) for i in range(10 * MAX_POINTS)])
    (path,) = re.findall(r'class="line s0" d="(M[^"H]*)"', svg)
    heights = {y for _, y in numbers_of(path)}
    assert len(numbers_of(path)) == MAX_POINTS
    assert len(heights) == 1  # each group has as many zeros as ones


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_group_with_values_that_are_not_finite_is_the_mean_of_the_others(bad):
    values = [bad if i % 10 == 3 else float(i % 2) for i in range(10 * MAX_POINTS)]
    values[-10:] = [bad] * 10  # the end of a run that diverged
    svg = chart([(float(i), y) for i, y in enumerate(values)])
    (path,) = re.findall(r'class="line s0" d="(M[^"H]*)"', svg)
    assert len(numbers_of(path)) == MAX_POINTS - 1
    assert len({y for _, y in numbers_of(path)}) == 1


# --- page ----------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.ids = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]


def test_no_text_becomes_markup(report):
    page = render(report)
    elements = Elements(page)
    assert not any(tag in ("b", "object", "iframe") for tag, _ in elements.found)
    assert not [key for _, attrs in elements.found for key in attrs if key.startswith("on")]
    assert sum(tag == "script" for tag, _ in elements.found) == 2
    assert len(elements.ids) == len(set(elements.ids))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert json.loads(data)["images"][2]["name"] == NAMES[3]


@pytest.mark.parametrize("name", ["\ud800", "\x1b[31m", "\u202egpj", "\x7f", "箱子"])
def test_the_page_has_no_letter_that_commands(report, name):
    errors = dataclasses.replace(report.errors, classes=(name, "dog"))
    page = render(dataclasses.replace(report, title=name, errors=errors))
    page.encode()
    assert printable(page) == page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert json.loads(data)["classes"][0] == name


def test_the_page_names_nothing_outside(report):
    elements = Elements(render(report))
    places = [attrs[key] for _, attrs in elements.found for key in ("src", "href") if key in attrs]
    assert len(places) > 10
    assert all(place.startswith(("data:", "#")) for place in places)
    policy = next(attrs["content"] for _, attrs in elements.found if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")
    style = render(report).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_figures_kinds_and_confusions(report):
    page = render(report)
    text = re.sub(r"<[^>]*>", " ", page.split("<main>")[1])
    text = re.sub(r"\s+", " ", text)
    assert "COCO AP 0.500 AP_S - Pascal VOC mAP 0.750" in text
    assert "cat 2 0.250 0.750" in text  # objects, AP, AP of VOC
    assert "Logged points with a loss that is NaN or infinite: 1." in text
    assert "3 of 3 images: the 1 that cost most AP50 and 2 drawn at random" in text
    rows = re.findall(
        r'<tr><th scope="row">(.*?)</tr>', page.split('class="matrix"')[1].split("</table>")[0]
    )
    counts = [re.findall(r"[\d.]*\">(\d*)</span>", row) for row in rows]
    assert counts == [["1", "", "1"], ["1", "1", ""], ["1", "", ""]]


def test_what_is_missing_is_left_out_and_said():
    empty = Report("t", {}, "", (), (), LOG, None, None, (), ("No test: run it",))
    page = render(empty)
    assert "No test: run it" in page
    assert re.findall(r'<section id="(\w+)"', page) == ["figures", "training"]
    assert "0.250" in page  # the last validation stands in for the test
    assert "<script" not in page


# --- in a browser --------------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
in_browser = pytest.mark.skipif(not BROWSER, reason="no chromium or chrome on PATH")


@pytest.fixture(scope="module")
def page_file(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(report), encoding="utf-8")
    return path


def opened(page, fragment, folder):
    """The text of the page's elements after its script ran, the console, and the requests."""
    requests = folder / "requests.json"
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --enable-logging=stderr "
        "--virtual-time-budget=5000 --window-size=1280,900 --dump-dom"
    )
    done = subprocess.run(
        [
            *(BROWSER, *options.split(), f"--user-data-dir={folder / 'profile'}"),
            *(f"--log-net-log={requests}", f"{page.as_uri()}{fragment}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 'data-ready="1"' in done.stdout, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console, re.findall(r'"url":"(\w+://[^/"]*)', requests.read_text())


def shown(dom):
    """Status, number of visible cards, and the kinds of the boxes drawn in them."""
    status = re.search(r'<span role="status">(.*?)</span>', dom)[1]
    cards = re.findall(r'<li class="card"( hidden="")?>(.*?)</li>', dom)
    visible = [card for hidden, card in cards if not hidden]
    return status, sorted(re.findall(r'class="edge k-(\w+)"', "".join(visible)))


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize(
    ("fragment", "status", "kinds"),
    [
        ("", "3 of 3 images, 5 boxes", "background classification correct correct missed"),
        # The dog of the second image is found with 0.4 only.
        ("#min=0.5", "3 of 3 images, 5 boxes", "background classification correct missed missed"),
        # What pointed to the dog of the first image is below, too.
        ("#min=0.85", "3 of 3 images, 4 boxes", "correct missed missed missed"),
        ("#kind=missed", "1 of 3 images, 1 box", "missed"),
        (
            "#class=cat&min=0.5&kind=missed,background",
            "1 of 3 images, 2 boxes",
            "background missed",
        ),
        # A cat where a dog is concerns both classes.
        ("#class=DOG", "2 of 3 images, 2 boxes", "classification correct"),
        ("#set=random", "2 of 3 images, 1 box", "correct"),
    ],
)
def test_filters_in_the_address(page_file, tmp_path, fragment, status, kinds):
    dom, console, requests = opened(page_file, fragment.replace("DOG", quote(EVIL)), tmp_path)
    assert shown(dom) == (status, kinds.split())
    assert console == []
    # Chromium itself asks for its updates, whatever the page.
    assert [one for one in requests if not one.endswith((".google.com", ".googleapis.com"))] == []


USE = """
const note = {};
const press = (key) => document.querySelector("dialog")
  .dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
document.querySelector("[value=correct]").click();
note.hash = location.hash;
const slider = document.querySelector("[name=min]");
slider.value = "0.85";
slider.dispatchEvent(new Event("input", { bubbles: true }));
note.status = document.querySelector("[role=status]").textContent;
document.querySelector(".card button").click();
note.first = document.querySelector("dialog h3").textContent;
note.rows = [...document.querySelectorAll("dialog tbody tr")].map((row) => row.innerText);
note.tags = [...document.querySelectorAll("dialog svg text")].map((tag) => tag.textContent);
press("ArrowRight");
note.second = document.querySelector("dialog h3").textContent;
press("ArrowRight");
note.last = document.querySelector("dialog h3").textContent;
document.querySelector("dialog [name=close]").click();
note.closed = !document.querySelector("dialog").open;
document.title = JSON.stringify(note);
"""


@pytest.mark.slow
@in_browser
def test_filters_and_the_large_image_by_hand(page_file, tmp_path):
    text = page_file.read_text(encoding="utf-8").replace(
        "</body>", f"<script>{USE}</script></body>"
    )
    page = tmp_path / "used.html"
    page.write_text(text, encoding="utf-8")
    dom, console, _ = opened(page, "", tmp_path)
    note = json.loads(unescape(re.search(r"<title>(.*?)</title>", dom)[1]))
    assert console == []
    assert note["hash"] == "#kind=classification,localisation,both,duplicate,background,missed"
    assert note["status"] == "2 of 3 images, 3 boxes"
    assert note["first"].startswith(NAMES[1])
    assert note["rows"] == ["missed\tcat\t-", f"missed\t{EVIL}\t-"]
    assert note["tags"] == ["cat missed ", f"{EVIL} missed "]
    assert note["second"].startswith("b.png")
    assert note["last"] == note["second"]
    assert note["closed"]


PHONE = """
<iframe width="360" height="640" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const inside = document.querySelector("iframe").contentDocument;
  const wide = [...inside.querySelectorAll("body *")].filter(
    (one) => !one.closest(".scroll") && one.getBoundingClientRect().right > 361);
  document.title = JSON.stringify([inside.body.clientWidth, wide.map((one) => one.outerHTML)]);
  document.body.dataset.ready = "1";
}});
</script>
"""


@pytest.mark.slow
@in_browser
def test_nothing_is_wider_than_a_phone(page_file, tmp_path):
    page = tmp_path / "phone.html"
    text = page_file.read_text(encoding="utf-8")
    page.write_text(PHONE.format(page=escape(text)), encoding="utf-8")
    dom, console, _ = opened(page, "", tmp_path)
    width, wide = json.loads(unescape(re.search(r"<title>(.*?)</title>", dom)[1]))
    assert 330 < width <= 360
    assert wide == []
    assert console == []

"""Six small trainings give the losses and weights that are written down, bit for bit."""

import importlib.util
import json
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("golden", Path(__file__).parent / "golden.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

RECORDS = json.loads(golden.RECORDS.read_text())
SAME_MACHINE = next((one for one in RECORDS if one["machine"] == golden.machine()), None)
STEPS_ELSEWHERE, TOLERANCE = 5, 1e-3


def nearest_record():
    """Returns the record of this machine, else the one that agrees with it in most points."""
    here = golden.machine().items()
    return SAME_MACHINE or max(RECORDS, key=lambda one: len(here & one["machine"].items()))


def differences(run, found, expected, *, exact):
    """Returns what differs, in words: the step, the loss, both numbers."""
    if len(found["losses"]) != len(expected["losses"]):
        return [f"{run}: {len(found['losses'])} steps, not {len(expected['losses'])}"]
    steps = len(expected["losses"]) if exact else STEPS_ELSEWHERE
    texts = []
    for step, (now, then) in enumerate(
        zip(found["losses"][:steps], expected["losses"][:steps], strict=True), start=1
    ):
        if set(now) != set(then):
            texts.append(f"{run}, step {step}: losses {sorted(now)}, not {sorted(then)}")
        for name in sorted(set(now) & set(then)):
            a, b = float.fromhex(now[name]), float.fromhex(then[name])
            if a != b and (exact or abs(a - b) > TOLERANCE * abs(b)):
                texts.append(f"{run}, step {step}: {name} is {a!r}, not {b!r}")
    others = [key for key in expected if key != "losses" and found[key] != expected[key]]
    return [*texts, *(f"{run}: {key} differ" for key in others if exact)]


def test_records_are_whole():
    for record in RECORDS:
        assert list(record["runs"]) == [*golden.RUNS, "work_dir"]
        assert record["runs"]["work_dir"]["predictions"]
        for name, run in record["runs"].items():
            assert len(run["losses"]) == 10 if name == "work_dir" else 20
            assert all("loss" in step for step in run["losses"])
    weights = [run["weights"] for run in RECORDS[0]["runs"].values()]
    assert len(set(weights)) == len(weights)


@pytest.mark.parametrize(
    ("change", "exact", "words"),
    [
        (lambda run: None, True, ""),
        (lambda run: run["losses"].pop(), True, "19 steps, not 20"),
        (lambda run: run["losses"][6].update(loss=(1.5).hex()), True, "step 7: loss is 1.5, not"),
        (lambda run: run["losses"][6].pop("loss_cls"), True, "step 7: losses ["),
        (lambda run: run.update(weights="0"), True, "weights differ"),
        (lambda run: run["figures"].clear(), True, "figures differ"),
        (lambda run: run["losses"][6].update(loss=(1.5).hex()), False, ""),
        (lambda run: run["losses"][1].update(loss=(1.5).hex()), False, "step 2: loss is 1.5"),
    ],
)
def test_a_difference_is_named(change, exact, words):
    expected = RECORDS[0]["runs"]["ohem"]
    found = json.loads(json.dumps(expected))
    change(found)
    texts = differences("ohem", found, expected, exact=exact)
    assert bool(texts) == bool(words)
    assert words in "\n".join(texts)


@pytest.mark.e2e
@pytest.mark.slow
def test_losses_and_weights_are_those_written_down(tmp_path):
    """Also those of a run that an earlier version has begun, tested, resumed and exported."""
    texts = []
    for run, expected in nearest_record()["runs"].items():
        found = golden.use_work_dir(tmp_path) if run == "work_dir" else golden.train(run, tmp_path)
        texts += differences(run, found, expected, exact=SAME_MACHINE is not None)[:5]
    assert not texts, "\n".join(texts)

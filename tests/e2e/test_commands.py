"""The commands as a user types them, on six small images."""

import json

import pytest
import warm

pytestmark = pytest.mark.e2e


def test_train_test_look_and_go_on(tiny_config, tmp_path):
    trained = warm.run("train", tiny_config, "--device", "cpu", "--quiet", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("work_dirs/tiny/best_coco_AP_iter_4.pth")
    assert "learning rate 0.01 x 2/16 = 0.00125" in trained.stderr
    assert "iter 4/4  loss " in trained.stderr
    assert "Traceback" not in trained.stderr
    assert "WARNING" not in trained.stderr

    tested = warm.run(  # the work dir is enough, config and classes included
        *("test", "work_dirs/tiny/tiny.py", "work_dirs/tiny", "--json", "--device", "cpu"),
        *("--show-dir", "pictures", "--out", "results.json"),
        cwd=tmp_path,
    )
    assert tested.returncode == 0, tested.stderr
    result = json.loads(tested.stdout)["result"]
    assert len(result["figures"]["summary"]) == 12
    assert result["figures"]["num_images"] == 6
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 6
    assert isinstance(json.loads((tmp_path / "results.json").read_text()), list)

    again = warm.run("train", tiny_config, "--device", "cpu", cwd=tmp_path)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    resumed = warm.run("train", tiny_config, "--resume", "--device", "cpu", cwd=tmp_path)
    assert resumed.returncode == 0
    assert "is finished" in resumed.stderr


@pytest.mark.slow
def test_two_processes_train_and_test(tiny_config, tmp_path):
    trained = warm.run("train", tiny_config, "--gpus", "2", "--device", "cpu", "-q", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("iter_4.pth") == 1  # one result, not one for each process
    assert "= 0.0025 (4 images per step: 2 processes x 2" in trained.stderr
    # five images: the sampler gives one of them to both; one at a time, as padding to the size
    # of a larger neighbour would change a group norm
    arguments = ("test", "work_dirs/tiny/tiny.py", "work_dirs/tiny", "--device", "cpu", "--json")
    arguments += ("--max-images", "5", "--score-thr", "0")
    one, two = (
        json.loads(warm.run(*arguments, *more, cwd=tmp_path).stdout)["result"]
        for more in (("--show-dir", "one"), ("--show-dir", "two", "--gpus", "2"))
    )
    assert one["figures"] == two["figures"]
    assert one["figures"]["num_images"] == 5
    assert len(two["pictures"]) == 5
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_benchmark_and_dataset(fldet, tiny_config, tiny_coco, tmp_path):
    timed = fldet("benchmark", tiny_config, "--shape", "64x64", "--images", "3", "-q", cwd=tmp_path)
    assert float(timed.stdout) > 0
    looked = fldet("analyze", "dataset", tiny_config, "--json", cwd=tmp_path)
    result = json.loads(looked.stdout)["result"]
    assert result["summary"]["images"] == 6
    assert all((tmp_path / path).stat().st_size > 1000 for path in result["pictures"])


def test_doctor_finds_nothing_wrong(tmp_path):
    done = warm.run("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "operator nms" in done.stdout

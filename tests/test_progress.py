"""Progress of long work, without a terminal; tests/engine/hooks/test_progress.py has one."""

import logging

from fldet.progress import with_progress


def test_all_items_come_and_a_tenth_is_a_line(caplog, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    assert list(with_progress(range(40), "images", 40, in_log=True)) == list(range(40))
    assert [*dict.fromkeys(caplog.messages)] == [f"images {done}/40" for done in range(4, 41, 4)]
    caplog.clear()
    capsys.readouterr()
    assert list(with_progress(iter("abc"), "images", 3)) == ["a", "b", "c"]
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")

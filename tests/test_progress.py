"""Progress of long work, without a terminal; tests/engine/hooks/test_progress.py has one."""

import logging

import pytest

from fldet import progress
from fldet.progress import heard, make_bar, shows_bars, with_progress


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


def unconfigured(monkeypatch):
    """Makes the loggers what they are in a new Python; returns that of fldet."""
    log = logging.getLogger("fldet")
    for one in (log, logging.getLogger()):
        monkeypatch.setattr(one, "handlers", [])
    monkeypatch.setattr(log, "level", logging.NOTSET)
    log.manager._clear_cache()
    return log


def test_what_is_logged_is_printed_where_nobody_has_configured_logging(monkeypatch, capsys):
    log = unconfigured(monkeypatch)
    with heard():
        log.info("iter 50/100")
        with heard():  # a test within a training
            log.warning("careful")
    log.info("nobody hears this")
    assert capsys.readouterr() == ("", "iter 50/100\nwarning: careful\n")
    assert (log.handlers, log.level) == ([], logging.NOTSET)


def test_a_program_with_handlers_of_its_own_hears_it_there_alone(monkeypatch, capsys):
    log, records, handler = unconfigured(monkeypatch), [], logging.Handler()
    monkeypatch.setattr(log, "propagate", True)
    handler.emit = records.append
    logging.getLogger().handlers.append(handler)
    with heard():
        log.warning("careful")
    assert [record.getMessage() for record in records] == ["careful"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("notebook", "widgets", "bars"),
    [(False, True, False), (True, True, True), (True, False, False)],
)
def test_a_notebook_has_bars_if_it_can_redraw_them(monkeypatch, notebook, widgets, bars):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: notebook)
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets else None)
    assert shows_bars() is bars
    assert make_bar().disable is not bars

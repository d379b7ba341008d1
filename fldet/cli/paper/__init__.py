"""``fldet paper``: the paper's tables, row by row."""

from fldet.cli.group import command_group, epilog
from fldet.cli.paper import report, run, tables

app = command_group("The paper's tables: every row is a config.")
for _name, _function, _examples, _summary in (
    ("list", tables.list_tables, tables.LIST_EXAMPLES, None),
    ("show", tables.show, tables.SHOW_EXAMPLES, None),
    ("run", run.run, run.EXAMPLES, "Train and test the rows of the tables."),
    ("report", report.report, report.EXAMPLES, "Compare the runs of a tier with the paper."),
):
    app.command(_name, epilog=epilog(_examples), short_help=_summary)(_function)

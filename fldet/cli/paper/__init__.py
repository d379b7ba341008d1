"""``fldet paper``: the paper's tables, row by row."""

from fldet.cli.group import command_group
from fldet.cli.paper import report, run, tables

app = command_group("The paper's tables: every row is a config.")
app.command("list", epilog=tables.LIST_EXAMPLES)(tables.list_tables)
app.command(epilog=tables.SHOW_EXAMPLES)(tables.show)
app.command(epilog=run.EXAMPLES, short_help="Train and test the rows of the tables.")(run.run)
app.command(epilog=report.EXAMPLES, short_help="Compare the runs of a tier with the paper.")(
    report.report
)

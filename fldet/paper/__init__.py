"""The paper's tables: their rows, the tiers to run them in, the runs and what they show.

``rows`` reads what the paper states, ``tiers`` makes a config of a row and a tier, ``plan`` says
which runs a table needs and where each lies, ``report`` compares, ``page`` writes it down.
The runs are done by ``fldet.runs``.
"""

from fldet.paper.rows import Comparison, Row, Table, compare, find_table, read_tables
from fldet.runs.outcome import Outcome

__all__ = ["Comparison", "Outcome", "Row", "Table", "compare", "find_table", "read_tables"]

"""Report: results as tables, JSON-able documents and an HTML page. No torch.

`supernode.report.page` and `layout_page` are imported by name: they need plotly, which is slow to
load.
"""

from supernode.report.document import comparison_document as comparison_document
from supernode.report.document import layouts_document as layouts_document
from supernode.report.document import machines_document as machines_document
from supernode.report.document import simulation_document as simulation_document
from supernode.report.layout_text import layouts_report as layouts_report
from supernode.report.layouts import explanation as explanation
from supernode.report.tables import as_text as as_text
from supernode.report.text import comparison_report as comparison_report
from supernode.report.text import machines_report as machines_report
from supernode.report.text import simulation_report as simulation_report

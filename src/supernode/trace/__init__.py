"""Trace: spans and counters by chip and stream, of a real run or a simulated one. No torch."""

from supernode.trace.chrome import from_chrome as from_chrome
from supernode.trace.rows import Rows as Rows
from supernode.trace.trace import COMM as COMM
from supernode.trace.trace import COMPUTE as COMPUTE
from supernode.trace.trace import COPY as COPY
from supernode.trace.trace import COUNTER as COUNTER
from supernode.trace.trace import HOST as HOST
from supernode.trace.trace import MEMORY as MEMORY
from supernode.trace.trace import PLANNED_MEMORY as PLANNED_MEMORY
from supernode.trace.trace import SPAN as SPAN
from supernode.trace.trace import STREAMS as STREAMS
from supernode.trace.trace import Counter as Counter
from supernode.trace.trace import Json as Json
from supernode.trace.trace import Span as Span
from supernode.trace.trace import Stream as Stream
from supernode.trace.trace import Trace as Trace
from supernode.trace.trace import columns as columns
from supernode.trace.trace import covered_s as covered_s
from supernode.trace.trace import verify_trace as verify_trace

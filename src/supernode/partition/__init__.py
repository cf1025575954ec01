"""Program and layout to Plan: one pass a file, one ordered list. No torch."""

from supernode.partition.fit import check_fits as check_fits
from supernode.partition.fit import partition_within as partition_within
from supernode.partition.line import SCHEMES as SCHEMES
from supernode.partition.line import Line as Line
from supernode.partition.line import Scheme as Scheme
from supernode.partition.line import parse_line as parse_line
from supernode.partition.partition import partition as partition

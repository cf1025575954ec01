"""Calibrate: this host as a machine, measured by the steps that `run` runs, and how well it fits.

What is timed are ops of plans on chips of this host, and what is fitted is the very code that
`simulate` prices ops with: there is no second model.
"""

from supernode.calibrate.assemble import calibrated as calibrated
from supernode.calibrate.compare import Comparison as Comparison
from supernode.calibrate.compare import compared as compared
from supernode.calibrate.hardware import Hardware as Hardware
from supernode.calibrate.hardware import slugged as slugged
from supernode.calibrate.measure import Measured as Measured
from supernode.calibrate.measure import measured as measured
from supernode.calibrate.subjects import SUBJECTS as SUBJECTS
from supernode.calibrate.subjects import Subject as Subject

"""An unmodified PyTorch step becomes a Program."""

from supernode.capture.captured import Captured as Captured
from supernode.capture.sites import user_line as user_line
from supernode.capture.step import capture as capture

"""The state of a step in files: whole tensors by name, whatever the layout they had on chips."""

from supernode.checkpoint.contents import Checkpoint as Checkpoint
from supernode.checkpoint.contents import Contents as Contents
from supernode.checkpoint.contents import checked_data as checked_data
from supernode.checkpoint.folder import check_room_for as check_room_for
from supernode.checkpoint.folder import newest as newest
from supernode.checkpoint.read import read as read
from supernode.checkpoint.write import write as write
from supernode.checkpoint.writer import Writer as Writer

"""Plan: mesh, layouts, the program of each chip, tasks, memory, the state machine. No torch."""

from supernode.plan.cut import by_expert as by_expert
from supernode.plan.cut import by_token as by_token
from supernode.plan.cut import cut as cut
from supernode.plan.cut import cut_axis as cut_axis
from supernode.plan.cut import cut_groups as cut_groups
from supernode.plan.cut import cut_name as cut_name
from supernode.plan.cut import time_axis as time_axis
from supernode.plan.json import plan_from_json as plan_from_json
from supernode.plan.json import plan_to_json as plan_to_json
from supernode.plan.layout import Layout as Layout
from supernode.plan.memory import memory as memory
from supernode.plan.mesh import Mesh as Mesh
from supernode.plan.plan import Placement as Placement
from supernode.plan.plan import Plan as Plan
from supernode.plan.plan import verify_plan as verify_plan
from supernode.plan.progress import Progress as Progress
from supernode.plan.progress import Task as Task

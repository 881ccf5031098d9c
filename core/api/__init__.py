"""The Python interface: one function for each task of the program. Torch is imported when a call needs it.

Long calls return an iterator of events (`core.events`) and make progress while it is consumed; the others return a
value. All raise `BitwrightError` (`core.errors`) with a message and a hint.
"""

from core.api.chats import answer as answer
from core.api.chats import chat as chat
from core.api.chats import conversation as conversation
from core.api.chats import open_chat as open_chat
from core.api.chats import sampling_of as sampling_of
from core.api.conversion import conversions as conversions
from core.api.conversion import convert as convert
from core.api.endpoint import serve as serve
from core.api.estimation import estimate as estimate
from core.api.evaluation import evaluate as evaluate
from core.api.inspection import Inspection as Inspection
from core.api.inspection import inspect as inspect
from core.api.machine import backends as backends
from core.api.machine import devices as devices
from core.api.planning import MapPlan as MapPlan
from core.api.planning import plan as plan
from core.api.runs import adopt_job as adopt_job
from core.api.runs import list_jobs as list_jobs
from core.api.runs import quantize as quantize
from core.api.runs import replay_job as replay_job
from core.api.runs import run_job as run_job
from core.api.speed import bench as bench

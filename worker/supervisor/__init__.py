"""All processes of leadsync under one roof.

    ProcessSpecs -> stages -> children, restarted when they end -> their lines, prefixed -> an end in order

plan.py decides (pure), processes.py does, console.py prints, launch.py is the last step before a child
becomes its program. Nothing here knows what the processes are for.

Invariant: no child outlives the supervisor; on Linux not even where that is killed.
"""

from worker.supervisor.plan import BEAT, RECEIVER, SERVERS, WORKERS, ProcessSpec
from worker.supervisor.processes import StartFailed, Supervisor, run

__all__ = [
    "BEAT",
    "RECEIVER",
    "SERVERS",
    "WORKERS",
    "ProcessSpec",
    "StartFailed",
    "Supervisor",
    "run",
]

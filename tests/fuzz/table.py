"""The one table of targets: everything here that reads bytes from outside."""

from typing import Final

from tests.fuzz import export_targets, graph_targets, receiver_targets, settings_targets, stream_targets
from tests.fuzz.target import Target

_ALL: Final = (
    *receiver_targets.TARGETS,
    *graph_targets.TARGETS,
    *stream_targets.TARGETS,
    *export_targets.TARGETS,
    *settings_targets.TARGETS,
)
TARGETS: Final[dict[str, Target]] = {target.name: target for target in _ALL}

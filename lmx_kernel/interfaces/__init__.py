"""The interfaces that objects of plugins implement, a module for each kind of plugin, and the
interface of the kernel that plugins call (:class:`Kernel`).
"""

from lmx_kernel.interfaces.answer import Answer
from lmx_kernel.interfaces.backend import (
    Backend,
    ModelSource,
)
from lmx_kernel.interfaces.job import (
    OPEN,
    PENDING,
    Job,
    JobError,
    JobKind,
    JobState,
    Report,
    ReusableJobKind,
)
from lmx_kernel.interfaces.kernel import (
    Jobs,
    Kernel,
)
from lmx_kernel.interfaces.model_settings import ModelSettingsStore, ModelSettingsView
from lmx_kernel.interfaces.plugin import (
    Finding,
    Monitor,
    PluginState,
    PluginStatus,
    SettingsSection,
)
from lmx_kernel.interfaces.route_query import RouteQuery
from lmx_kernel.interfaces.router import (
    ModelState,
    Router,
    RoutingContext,
)
from lmx_kernel.interfaces.status import (
    KernelStatus,
    ModelFigures,
    ModelStatus,
)
from lmx_kernel.interfaces.stored_answer import StoredAnswer, StoredAnswers
from lmx_kernel.interfaces.stored_prefixes import StoredPrefixes
from lmx_kernel.interfaces.surface import (
    ApiSurface,
    HeaderRouted,
    HttpRequest,
    Operation,
)
from lmx_kernel.interfaces.websocket import (
    GOING_AWAY,
    NORMAL,
    REFUSED,
    WebSocket,
    WebSocketClosedError,
    WebSocketHandler,
    WebSocketRoute,
    WebSocketRouted,
)

__all__ = [
    "GOING_AWAY",
    "NORMAL",
    "OPEN",
    "PENDING",
    "REFUSED",
    "Answer",
    "ApiSurface",
    "Backend",
    "Finding",
    "HeaderRouted",
    "HttpRequest",
    "Job",
    "JobError",
    "JobKind",
    "JobState",
    "Jobs",
    "Kernel",
    "KernelStatus",
    "ModelFigures",
    "ModelSettingsStore",
    "ModelSettingsView",
    "ModelSource",
    "ModelState",
    "ModelStatus",
    "Monitor",
    "Operation",
    "PluginState",
    "PluginStatus",
    "Report",
    "ReusableJobKind",
    "RouteQuery",
    "Router",
    "RoutingContext",
    "SettingsSection",
    "StoredAnswer",
    "StoredAnswers",
    "StoredPrefixes",
    "WebSocket",
    "WebSocketClosedError",
    "WebSocketHandler",
    "WebSocketRoute",
    "WebSocketRouted",
]

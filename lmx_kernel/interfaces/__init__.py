"""The interfaces that objects of plugins implement, a module for each kind of plugin, and the
interface of the kernel that plugins call (:class:`Kernel`).
"""

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.interfaces.answer import Answer, AnswerHook, AnswerObserver, Transform
from lmx_kernel.interfaces.backend import (
    Backend,
    HasVocabulary,
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
from lmx_kernel.interfaces.metric import (
    Counter,
    Gauge,
    Histogram,
    Metric,
    Metrics,
    MetricSeries,
)
from lmx_kernel.interfaces.model_settings import ModelSettingsStore, ModelSettingsView
from lmx_kernel.interfaces.plugin import (
    Finding,
    HookCall,
    HookTimes,
    Log,
    Monitor,
    PluginState,
    PluginStatus,
)
from lmx_kernel.interfaces.route_query import RouteQuery
from lmx_kernel.interfaces.router import (
    ModelState,
    Router,
    RoutingContext,
)
from lmx_kernel.interfaces.status import (
    KernelStatus,
    KeyStatus,
    ModelFigures,
    ModelStatus,
)
from lmx_kernel.interfaces.stored_answer import StoredAnswer, StoredAnswers
from lmx_kernel.interfaces.stored_prefixes import StoredPrefixes
from lmx_kernel.interfaces.surface import (
    NO_KEY,
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
    "NO_KEY",
    "OPEN",
    "PENDING",
    "REFUSED",
    "Answer",
    "AnswerHook",
    "AnswerObserver",
    "ApiSurface",
    "Backend",
    "Counter",
    "Finding",
    "Gauge",
    "HasVocabulary",
    "HeaderRouted",
    "Histogram",
    "HookCall",
    "HookTimes",
    "HttpRequest",
    "Job",
    "JobError",
    "JobKind",
    "JobState",
    "Jobs",
    "Kernel",
    "KernelStatus",
    "KeyStatus",
    "Log",
    "Metric",
    "MetricSeries",
    "Metrics",
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
    "Transform",
    "WebSocket",
    "WebSocketClosedError",
    "WebSocketHandler",
    "WebSocketRoute",
    "WebSocketRouted",
]

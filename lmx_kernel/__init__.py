"""The kernel of LMX, a private LLM inference server whose every capability is a plugin.

A request passes through two processes: the daemon, which serves HTTP and queues requests, and a
worker, one for each loaded model, which runs the engine. The packages below are listed in the order
in which a request meets them; ``docs/design.md`` describes the path step by step.

The contract with plugins, at the root, for both processes:

    api/                what plugins may import, and the version of it
    types/              requests, answers and models as data
    errors.py           the errors that users see: code, HTTP status, whether a retry can help
    events.py           what happens in the kernel, for logs, statistics and plugins
    interfaces/         what objects of plugins implement, and the Kernel that plugins call
    hookspecs.py        the hooks by which plugins register these objects

The daemon:

    __main__.py         ``python -m lmx_kernel`` is the ``lmx`` command
    cli/                the ``lmx`` command; ``lmx serve`` runs the daemon
    daemon/             start, background tasks and shutdown of the server
    http/               from a socket to a surface plugin: limits, timeouts, errors, log line
    dialect/            what surface plugins have in common: fields, checks, whole answers
    access/             API keys, their scopes, and who is authorised
    kernel/             builds the kernel from config and plugins; implements the Kernel interface
    routing/            chooses the model of a request, with fallback to the next candidate
    models/             the catalogue of models on disk, and the backends that recognise them
    memory/             the ledger of reserved bytes, the budget, and the guard against overuse
    runtime/            an instance for each model: its life, its worker, its queue, its answers
    observe/            event bus, log, statistics, status and monitors
    jobs/               long work, such as downloads, that is watched by id and survives a restart
    stored/             answers that are kept, and computed in the background over restarts

Both:

    config/             the config file, structured into attrs classes
    processes/          child processes: start, watch, and end with their parent
    plugins/            finds, loads and calls plugins; reads entry points

A worker:

    worker/             the channel to the daemon, its messages, and the loop that steps the engine
    text/               chat templates, detokenising and stop strings, once for all engines
    text/formats/       chat formats: how models write reasoning and tool calls
    text/constraints/   the interface of structured output; a plugin implements it
    engine/             the protocol of an engine, and what engines have in common

For tests, of LMX and of plugin authors:

    testing/            fake models and an engine that serves them, kernels and daemons in process
    testing/conformance/  what every plugin of a kind must do, as classes that its tests derive from
"""

from importlib.metadata import version

__version__ = version("lmx-kernel")

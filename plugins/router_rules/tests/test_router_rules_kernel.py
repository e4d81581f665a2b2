"""Chains in a running kernel: who takes a request, and what is told of it."""

from __future__ import annotations

from contextlib import suppress

import httpx2
import pytest

from lmx_kernel.errors import (
    ContextOverflowError,
    EngineCrashedError,
    LmxError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
)
from lmx_kernel.runtime.breaker import MAX_IN_A_ROW
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import (
    ask,
    running_daemon,
    running_kernel,
    write_config,
    write_fake_models,
)
from lmx_kernel.types import LoadOverrides, PromptProgress, TextPrompt

PLUGINS = ("lmx_router_rules.plugin",)
GIB = 1024**3
CHAIN = '[router_rules.aliases]\ngood = ["first", "second"]\n'
QUICK = FakeModel(answer_tokens=2)


async def answer(stage, model="good", text="hello", **fields):
    """Let a model answer, and return the answer."""
    with await stage.kernel.generate(ask(model, text, **fields)) as answer:
        async for _ in answer:
            pass
    return answer


def skips(stage):
    """Return whom the last decision passed over, and why."""
    return {one.model: one.reason for one in stage.kernel.decisions()[0].skipped}


async def test_the_first_of_the_chain_takes_the_request(tmp_path):
    async with running_kernel(tmp_path, {"first": QUICK, "second": QUICK}, CHAIN, PLUGINS) as stage:
        assert (await answer(stage)).model == "first"
        decision = stage.kernel.decisions()[0]
    assert (decision.asked, decision.model, decision.router) == ("good", "first", "rules")
    assert decision.rule == "alias good"
    assert decision.skipped == ()


async def test_a_model_that_is_not_installed_is_passed_over(tmp_path):
    async with running_kernel(tmp_path, {"second": QUICK}, CHAIN, PLUGINS) as stage:
        assert (await answer(stage)).model == "second"
        assert skips(stage) == {"first": "not installed"}


async def test_a_model_that_does_not_fit_is_passed_over(tmp_path):
    scripts = {"first": FakeModel(memory_bytes=64 * GIB), "second": QUICK}
    config = f"{CHAIN}[memory]\nbudget_bytes = {GIB}"
    async with running_kernel(tmp_path, scripts, config, PLUGINS) as stage:
        assert (await answer(stage)).model == "second"
        assert "does not fit: 64.00 GiB are needed" in skips(stage)["first"]


async def test_a_model_whose_context_is_too_small_is_passed_over(tmp_path):
    scripts = {"first": FakeModel(context_length=64), "second": QUICK}
    async with running_kernel(tmp_path, scripts, CHAIN, PLUGINS) as stage:
        assert (await answer(stage, text="x" * 400, max_tokens=9)).model == "second"
        assert "do not fit its maximum context length of 64" in skips(stage)["first"]


async def test_a_role_takes_longer_answers_than_its_model_can_give_as_the_model_does(tmp_path):
    scripts = {"second": FakeModel(answer_tokens=2, context_length=512)}
    async with running_kernel(tmp_path, scripts, CHAIN, PLUGINS) as stage:
        for model in ("second", "good"):
            assert (await answer(stage, model, max_tokens=4096)).model == "second"
        assert skips(stage) == {"first": "not installed"}


async def test_of_models_that_all_seem_too_small_the_largest_is_tried(tmp_path):
    scripts = {"first": FakeModel(context_length=64), "second": FakeModel(context_length=96)}
    async with running_kernel(tmp_path, scripts, CHAIN, PLUGINS) as stage:
        with suppress(ContextOverflowError):
            await answer(stage, text="x" * 400)
        assert stage.kernel.decisions()[0].model == "second"


async def test_a_prompt_of_any_length_can_be_counted_for_a_role(tmp_path):
    scripts = {"second": FakeModel(context_length=64)}
    async with running_kernel(tmp_path, scripts, CHAIN, PLUGINS) as stage:
        request = ask("good", "x" * 4000)
        assert await stage.kernel.count_tokens(request) > 64


async def test_one_that_was_just_put_on_disk_is_found(tmp_path):
    async with running_kernel(tmp_path, {"other": QUICK}, CHAIN, PLUGINS) as stage:
        write_fake_models(tmp_path, {"second": QUICK})
        assert (await answer(stage)).model == "second"


async def test_what_does_not_fit_is_estimated_once(tmp_path, monkeypatch):
    scripts = {"first": FakeModel(memory_bytes=64 * GIB), "second": QUICK}
    config = f"{CHAIN}[memory]\nbudget_bytes = {GIB}"
    async with running_kernel(tmp_path, scripts, config, PLUGINS) as stage:
        estimated = []
        lifecycle = stage.kernel._lifecycle
        admission = lifecycle.admission

        async def counted(card, wish):
            estimated.append(card.id)
            return await admission(card, wish)

        monkeypatch.setattr(lifecycle, "admission", counted)
        for _ in range(3):
            assert (await answer(stage)).model == "second"
        assert estimated.count("first") == 1
        stage.kernel.configure({"models": {"parallel": 3}})
        await answer(stage)
        assert estimated.count("first") == 2


async def test_a_model_that_could_not_be_loaded_is_passed_over_from_then_on(tmp_path):
    scripts = {"first": FakeModel(load_error="a tensor is missing"), "second": QUICK}
    async with running_kernel(tmp_path, scripts, CHAIN, PLUGINS) as stage:
        with pytest.raises(LmxError, match="a tensor is missing"):
            await answer(stage)
        assert (await answer(stage)).model == "second"
        assert "its last load failed: a tensor is missing" in skips(stage)["first"]


async def test_a_model_that_cools_down_is_passed_over(tmp_path):
    scripts = {"first": FakeModel(crash_at=1, times=9), "second": QUICK}
    async with running_kernel(tmp_path, scripts, CHAIN, PLUGINS) as stage:
        for _ in range(-(-MAX_IN_A_ROW // 2)):  # each costs two crashes
            with pytest.raises(EngineCrashedError):
                await answer(stage, model="first")
        assert (await answer(stage)).model == "second"
        assert skips(stage)["first"] == "it cools down after crashes"


async def test_a_model_whose_queue_is_full_is_passed_over(tmp_path):
    scripts = {"first": FakeModel(tokens_per_s=5), "second": QUICK}
    config = f"{CHAIN}[models]\nparallel = 1\n[queue]\nmax_waiting = 1"
    async with running_kernel(tmp_path, scripts, config, PLUGINS) as stage:
        with await stage.kernel.generate(ask("first")) as running:
            async for event in running:
                if isinstance(event, PromptProgress):
                    break
            with await stage.kernel.generate(ask("first")):
                assert (await answer(stage)).model == "second"
                assert skips(stage)["first"] == "1 requests wait for first already"


async def test_a_model_where_a_request_would_wait_too_long_is_passed_over(tmp_path):
    rule = '[[router_rules.rules]]\nname = "soon"\nmodels = ["first", "second"]\nmax_wait_s = 0.1\n'
    scripts = {"first": FakeModel(load_s=0.5), "second": FakeModel(answer_tokens=2)}
    async with running_kernel(tmp_path, scripts, rule, PLUGINS) as stage:
        await stage.kernel.load("first", LoadOverrides())
        await stage.kernel.unload("first")
        assert (await answer(stage, "auto")).model == "second"
        assert skips(stage)["first"].startswith("it could begin in ")


@pytest.mark.parametrize("condition", ["max_wait_s = 0.1", "loaded = true"])
async def test_a_rule_of_which_no_model_fits_now_says_to_come_again(tmp_path, condition):
    rule = '[[router_rules.rules]]\nname = "soon"\nasked = ["soon"]\nmodels = ["first"]\n'
    scripts = {"first": FakeModel(load_s=0.3, answer_tokens=2)}
    async with running_kernel(tmp_path, scripts, f"{rule}{condition}", PLUGINS) as stage:
        await stage.kernel.load("first", LoadOverrides())
        await stage.kernel.unload("first")
        with pytest.raises(UnavailableError, match="no model of soon takes") as error:
            await answer(stage, "soon")
    assert error.value.retryable
    assert error.value.retry_after_s


async def test_a_model_that_would_begin_after_the_deadline_is_passed_over(tmp_path):
    config = f"{CHAIN}[queue]\nmax_wait_s = 0.8"
    async with running_kernel(
        tmp_path, {"first": FakeModel(load_s=1.0), "second": QUICK}, config, PLUGINS
    ) as stage:
        await stage.kernel.load("second", LoadOverrides())
        await stage.kernel.load("first", LoadOverrides())
        await stage.kernel.unload("first")
        assert (await answer(stage)).model == "second"
        assert "and 0.8 s are allowed" in skips(stage)["first"]


async def test_if_nobody_takes_it_the_error_says_why_and_whether_to_come_again(tmp_path):
    config = f"{CHAIN}[queue]\nmax_waiting = 0"
    async with running_kernel(tmp_path, {"second": QUICK}, config, PLUGINS) as stage:
        with pytest.raises(QueueFullError) as error:
            await answer(stage)
        assert stage.kernel.decisions()[0].model == ""
    assert "first: not installed; second: 0 requests wait" in error.value.message
    assert error.value.retryable
    assert error.value.retry_after_s


async def test_a_chain_of_which_nothing_is_installed_is_not_found(tmp_path):
    async with running_kernel(tmp_path, {"other": QUICK}, CHAIN, PLUGINS) as stage:
        with pytest.raises(ModelNotFoundError, match="first: not installed; second: not installed"):
            await answer(stage)


async def test_a_strict_rule_answers_with_the_error_of_its_best_model(tmp_path):
    rule = '[[router_rules.rules]]\nname = "only"\nmodels = ["first", "second"]\nstrict = true\n'
    config = f"{rule}[queue]\nmax_waiting = 0"
    async with running_kernel(
        tmp_path, {"first": QUICK, "second": QUICK}, config, PLUGINS
    ) as stage:
        with pytest.raises(QueueFullError, match="wait for first already"):
            await answer(stage, "auto")


async def test_a_strict_rule_never_goes_to_its_second_model(tmp_path):
    rule = '[[router_rules.rules]]\nname = "only"\nmodels = ["first", "second"]\nstrict = true\n'
    async with running_kernel(tmp_path, {"second": QUICK}, rule, PLUGINS) as stage:
        with pytest.raises(ModelNotFoundError, match="first"):
            await answer(stage, "auto")


async def test_a_model_that_is_asked_for_by_name_is_never_swapped(tmp_path):
    rule = '[[router_rules.rules]]\nname = "all"\nasked = ["*"]\nmodels = ["second"]\n'
    config = f"{rule}[queue]\nmax_waiting = 0"
    async with running_kernel(
        tmp_path, {"first": QUICK, "second": QUICK}, config, PLUGINS
    ) as stage:
        with pytest.raises(QueueFullError, match="wait for first already"):
            await answer(stage, "first")
        assert stage.kernel.decisions()[0].router == ""


async def test_embeddings_are_routed_too(tmp_path):
    scripts = {"words": QUICK, "vectors": FakeModel(embeds=True)}
    async with running_kernel(tmp_path, scripts, "", PLUGINS) as stage:
        assert (await stage.kernel.embed("auto", [TextPrompt("hello")])).model == "vectors"
        assert (await answer(stage, "auto")).model == "words"


async def test_the_last_decisions_are_kept_the_newest_first(tmp_path):
    async with running_kernel(tmp_path, {"second": QUICK}, CHAIN, PLUGINS) as stage:
        for model in ("good", "second", "auto"):
            await answer(stage, model)
        with pytest.raises(ModelNotFoundError):
            await answer(stage, "nobody")
        assert [one.asked for one in stage.kernel.decisions()] == [
            "nobody",
            "auto",
            "second",
            "good",
        ]


async def test_a_router_that_raises_is_passed_over(tmp_path, caplog):
    async with running_kernel(tmp_path, {"second": QUICK}, CHAIN, PLUGINS) as stage:

        class Broken:
            name = "rules"

            def route(self, request, models, context):
                raise ZeroDivisionError

        stage.kernel._placement.routers = [Broken()]
        assert (await answer(stage, "second")).model == "second"


async def test_clients_are_told_who_answers_and_rules_see_who_asks(tmp_path):
    rule = """
    [[router_rules.rules]]
    name = "red team"
    headers = {x-team = "red"}
    models = ["gone", "second"]
    """
    write_fake_models(tmp_path, {"first": QUICK, "second": QUICK})
    surfaces = ("lmx_openai_api.plugin", "lmx_admin_api.plugin")
    config = write_config(tmp_path, (*PLUGINS, *surfaces), rule)
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
    async with (
        running_daemon(config) as daemon,
        httpx2.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        for stream in (False, True):
            response = await http.post(
                "/v1/chat/completions", json=body | {"stream": stream}, headers={"x-team": "red"}
            )
            assert response.headers["x-lmx-model"] == "second"
            assert response.headers["x-lmx-route"] == "rules/red team; skipped gone: not installed"
        response = await http.post("/v1/chat/completions", json=body | {"model": "first"})
        assert response.headers["x-lmx-route"] == "by name"
        assert "x-lmx-model" not in (await http.get("/v1/models")).headers
        decisions = (await http.get("/admin/decisions")).json()["decisions"]
        assert [one["model"] for one in decisions] == ["first", "second", "second"]
        assert decisions[1]["skipped"] == [{"model": "gone", "reason": "not installed"}]


@pytest.mark.parametrize(
    ("order", "expected"), [(["length", "rules"], "length"), (["rules", "length"], "rules")]
)
async def test_another_router_may_be_asked_before_or_after(
    tmp_path, request, monkeypatch, order, expected
):
    example = request.config.rootpath / "examples" / "lmx-plugin-length-router"
    monkeypatch.syspath_prepend(str(example))
    config = f"[routing]\norder = {order}"
    plugins = ("lmx_length_router", *PLUGINS)
    async with running_kernel(tmp_path, {"m": QUICK}, config, plugins) as stage:
        await answer(stage, "auto")
        assert stage.kernel.decisions()[0].router == expected

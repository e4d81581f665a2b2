"""The router in a kernel with fake models: before the rules, and after them."""

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel

PLUGINS = ("lmx_length_router", "lmx_router_rules.plugin")
MODELS = {"long": FakeModel(context_length=8192), "short": FakeModel(context_length=2048)}
RULE = '[[router_rules.rules]]\nname = "all"\nmodels = ["short"]\n'


async def decided(folder, order, text):
    config = f"{RULE}[routing]\norder = {order}"
    async with running_kernel(folder, MODELS, config, PLUGINS) as stage:
        with await stage.kernel.generate(ask("auto", text, max_tokens=1)) as answer:
            route = stage.kernel.decisions()[0]
            return answer.model, route.router, route.rule


async def test_long_prompts_go_where_the_context_is(tmp_path):
    assert await decided(tmp_path, ["length", "rules"], "x " * 1500) == ("long", "length", "long")


async def test_the_config_says_who_is_asked_first(tmp_path):
    assert await decided(tmp_path, ["rules", "length"], "x " * 1500) == ("short", "rules", "all")

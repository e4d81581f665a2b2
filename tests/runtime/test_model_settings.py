"""A kernel with settings of single models: what requests, workers and lists get."""

from __future__ import annotations

import asyncio
import stat

import pytest

from lmx_kernel.cli.diagnostics import run_diagnostics
from lmx_kernel.config import ConfigError
from lmx_kernel.daemon.background import autoload
from lmx_kernel.errors import InvalidRequestError, ModelNotFoundError, ModelUnusableError
from lmx_kernel.kernel.boot import boot
from lmx_kernel.kernel.scan import scan
from lmx_kernel.models.saved_settings import merged, saved_file
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel, write_config, write_fake_models
from lmx_kernel.types import Finished, LoadOverrides, SamplingRequest, TextDelta

MAKER = FakeModel(sampling={"temperature": 1.0, "top_p": 0.9})


async def sent(kernel, model, **fields):
    """Return the request as a worker gets it, after its whole answer."""
    with await kernel.generate(ask(model, **{"max_tokens": 2, **fields})) as answer:
        async for _ in answer:
            pass
    return answer.request


def in_force(kernel, model, key):
    one = kernel.model_settings.show(model).settings[key]
    return one.value, one.source


ORDER = [  # field, value of LMX, of the config, of the API, of the request
    ("temperature", 0.8, 0.5, 0.6, 0.7),
    ("top_k", 40, 5, 6, 7),
    ("top_p", 0.95, 0.5, 0.6, 0.7),
    ("min_p", 0.05, 0.25, 0.35, 0.45),
    ("repetition_penalty", 1.0, 1.25, 1.5, 1.75),
    ("presence_penalty", 0.0, 0.25, 0.5, 0.75),
    ("frequency_penalty", 0.0, 0.25, 0.5, 0.75),
]


async def test_sampling_by_request_then_api_then_config_then_file_then_lmx(tmp_path):
    table = "\n".join(f"sampling.{name} = {value}" for name, _, value, *_ in ORDER)
    config = f'[[model]]\nmatch = "both"\n{table}\n'
    scripts = {"none": FakeModel(), "file": MAKER, "both": MAKER}
    async with running_kernel(tmp_path, scripts, config) as stage:
        kernel = stage.kernel
        plain, of_file, of_config = [
            (await sent(kernel, model)).sampling for model in ("none", "file", "both")
        ]
        changes = {name: value for name, _, _, value, _ in ORDER}
        await kernel.model_settings.change("both", {"sampling": changes})
        of_api = (await sent(kernel, "both")).sampling
        asked = SamplingRequest(**{name: value for name, *_, value in ORDER})
        of_request = (await sent(kernel, "both", sampling=asked)).sampling
        for name, lmx, in_config, in_api, in_request in ORDER:
            off = {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.0}.get(name, 0)
            assert getattr(plain, name) == lmx, name
            assert getattr(of_file, name) == off, name
            assert getattr(of_config, name) == in_config, name
            assert getattr(of_api, name) == in_api, name
            assert getattr(of_request, name) == in_request, name
            assert in_force(kernel, "none", f"sampling.{name}") == (lmx, "LMX")
            assert in_force(kernel, "file", f"sampling.{name}") == (off, "model's file")
            assert in_force(kernel, "both", f"sampling.{name}") == (in_api, "api")
        await kernel.model_settings.reset("both")
        for name, _, in_config, *_ in ORDER:
            assert in_force(kernel, "both", f"sampling.{name}") == (in_config, "config table 1")


LOADING = [  # key, of [models] or LMX, of the table, of the API, of the load
    ("context_length", 8192, 1024, 512, 256),
    ("parallel", 8, 4, 3, 2),
    ("ttl_s", 3600.0, 50.0, 60.0, 70.0),
    ("pinned", False, True, False, True),
    ("cache_tokens", 16384, 4000, 3000, None),
    ("autoload", False, True, False, None),
    ("hidden", False, True, False, None),
    ("drafts", None, (), ("copy",), None),
    ("max_tokens", None, 40, 30, None),
    ("max_tokens_limit", None, 400, 300, None),
    ("stop", (), ("A",), ("B",), None),
    ("reasoning_tokens", None, 4, 3, None),
    ("format", None, "plain", "plain", None),
    ("backend", None, "fake", "fake", None),
    ("template_options.x", None, 1, 2, None),
    ("aliases", (), ("one",), ("two",), None),
]


async def test_every_other_setting_in_the_same_order(tmp_path):
    lines = [f"{key} = {_toml(value)}" for key, _, value, *_ in LOADING]
    config = '[[model]]\nmatch = "*"\nparallel = 9\n[[model]]\nmatch = "m"\n' + "\n".join(lines)
    scripts = {"m": FakeModel(context_length=10**5), "n": FakeModel(context_length=10**5)}
    async with running_kernel(tmp_path, scripts, config) as stage:
        kernel = stage.kernel
        for key, lmx, in_table, *_ in LOADING:
            assert in_force(kernel, "m", key) == (in_table, "config table 2")
            if key == "parallel":
                assert in_force(kernel, "n", key) == (9, "config table 1")
            elif lmx is not None or "." not in key:
                assert in_force(kernel, "n", key) == (lmx, "LMX"), key
        wanted = {key: _json(value) for key, _, _, value, _ in LOADING if "." not in key}
        await kernel.model_settings.change("m", wanted | {"template_options": {"x": 2}})
        for key, _, _, in_api, _ in LOADING:
            assert in_force(kernel, "m", key) == (in_api, "api"), key
        overrides = {key: value for key, *_, value in LOADING if value is not None}
        await kernel.load("m", LoadOverrides(**overrides))
        for key, value in overrides.items():
            assert in_force(kernel, "m", key) == (value, "load request")
        status = kernel.status().models[0]
        assert (status.context_length, status.parallel) == (256, 2)
        assert (status.ttl_s, status.pinned) == (70.0, True)
        await kernel.unload("m")
        for key in overrides:
            assert in_force(kernel, "m", key)[1] == "api"


def _json(value):
    return list(value) if isinstance(value, tuple) else value


def _toml(value):
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else repr(value)


async def test_the_section_models_counts_after_the_tables(tmp_path):
    config = '[models]\nparallel = 5\nttl_s = 9\n[[model]]\nmatch = "m"\nparallel = 6\n'
    async with running_kernel(tmp_path, {"m": FakeModel()}, config) as stage:
        assert in_force(stage.kernel, "m", "parallel") == (6, "config table 1")
        assert in_force(stage.kernel, "m", "ttl_s") == (9.0, "config [models]")
        assert in_force(stage.kernel, "m", "context_length") == (4096, "model's file")


async def test_a_key_of_the_backend_is_for_this_model_alone(tmp_path):
    config = f'[[model]]\nmatch = "m"\nfolder = "{tmp_path}/other"\n'
    async with running_kernel(tmp_path, {"m": FakeModel(), "n": FakeModel()}, config) as stage:
        await sent(stage.kernel, "m")
        await sent(stage.kernel, "n")
        assert str(stage.instance("m").spec.settings["folder"]) == f"{tmp_path}/other"
        assert str(stage.instance("n").spec.settings["folder"]) == str(tmp_path)


async def test_what_is_set_by_api_survives_a_restart_in_a_private_file(tmp_path):
    scripts = {"m": FakeModel()}
    async with running_kernel(tmp_path, scripts) as stage:
        view = await stage.kernel.model_settings.change("m", {"max_tokens": 5, "stop": ["X"]})
        assert view.saved == {"max_tokens": 5, "stop": ["X"]}
        await stage.kernel.load("m", LoadOverrides(parallel=3, pinned=True))
    assert stat.S_IMODE(saved_file(tmp_path).stat().st_mode) == 0o600
    config = (tmp_path / "config.toml").read_text()
    assert "max_tokens" not in config
    async with running_kernel(tmp_path, scripts) as stage:
        assert in_force(stage.kernel, "m", "max_tokens") == (5, "api")
        await sent(stage.kernel, "m")
        assert stage.instance("m").spec.options.parallel == 3
        assert stage.instance("m").pinned
        await stage.kernel.unload("m")
        await stage.kernel.model_settings.change("m", {"max_tokens": None})
    async with running_kernel(tmp_path, scripts) as stage:
        assert stage.kernel.model_settings.show("m").saved == {"stop": ["X"]}
        assert in_force(stage.kernel, "m", "parallel") == (8, "LMX")


async def test_a_change_says_what_waits_for_the_next_load(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        settings = stage.kernel.model_settings
        assert (await settings.change("m", {"parallel": 5})).needs_reload == ()
        await sent(stage.kernel, "m")
        view = await settings.change("m", {"parallel": 6, "ttl_s": 7, "pinned": True})
        assert view.needs_reload == ("parallel",)
        instance = stage.instance("m")
        assert (instance.ttl_s, instance.pinned) == (7, True)
        assert instance.spec.options.parallel == 5
        view = await settings.change("m", {"sampling": {"top_k": 3}})
        assert view.needs_reload == ()
        await stage.kernel.unload("m")
        await sent(stage.kernel, "m")
        assert stage.instance("m").spec.options.parallel == 6


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({"sampling": {"temperature": 3}}, "sampling.temperature"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature"),
        ({"stop": "x"}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"context_lenght": 5}, "context_lenght"),
        ({"backend": "nobody"}, "backend"),
        ({"format": "nobody"}, "format"),
        ({"folder": 4}, "folder"),
        ({"chat_template": "/not/there"}, "chat_template"),
        ({"chat_template": "here.jinja"}, "chat_template"),
        ({"profiles": {"a:b": {}, "c": {"max_tokens": 1}}, "match": "x"}, "match"),
        ({"profiles": {"fast": {"parallel": 1}}}, "profiles.fast.parallel"),
        ({"template_options": {"x": 2**80}}, "template_options"),
    ],
)
async def test_wrong_settings_are_refused_whole_and_by_name(tmp_path, wanted, where):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        with pytest.raises(InvalidRequestError, match=where):
            await stage.kernel.model_settings.change("m", {"max_tokens_limit": 9, **wanted})
        assert stage.kernel.model_settings.show("m").saved == {}


async def test_a_template_takes_the_place_of_the_model_s_own(tmp_path):
    broken, fine = tmp_path / "broken.jinja", tmp_path / "fine.jinja"
    broken.write_text("{% if %}")
    fine.write_text("{% for m in messages %}[{{ m.content }}/{{ style }}]{% endfor %}")
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        settings = stage.kernel.model_settings
        with pytest.raises(InvalidRequestError, match="broken"):
            await settings.change("m", {"chat_template": str(broken)})
        options = {"style": "short"}
        await settings.change("m", {"chat_template": str(fine), "template_options": options})
        counted = await stage.kernel.count_tokens(ask("m", "hello"))
        assert counted == len("[hello/short]")


async def test_a_template_that_broke_since_is_refused_before_it_is_used(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{{ messages[0].content }}")
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await stage.kernel.model_settings.change("m", {"chat_template": str(path)})
        path.write_text("{% if %}")
        with pytest.raises(Exception, match="chat_template"):
            await stage.kernel.load("m", LoadOverrides())


async def test_a_profile_is_a_name_of_the_same_loaded_model(tmp_path):
    config = """
[[model]]
match = "m"
aliases = ["Small", "gpt-x"]
max_tokens = 7
profiles.fast = { sampling.temperature = 0.1, template_options.thinking = false, max_tokens = 3 }
"""
    async with running_kernel(tmp_path, {"m": FakeModel(), "n": FakeModel()}, config) as stage:
        kernel = stage.kernel
        names = [name.name for name in kernel.model_settings.names()]
        assert names == ["m", "Small", "gpt-x", "m:fast", "n"]
        fast = await sent(kernel, "m:fast", max_tokens=None)
        assert (fast.sampling.temperature, fast.max_tokens) == (0.1, 3)
        assert fast.prompt.options == {"thinking": False}
        plain = await sent(kernel, "gpt-x", max_tokens=None)
        assert (plain.sampling.temperature, plain.max_tokens) == (0.8, 7)
        assert (await sent(kernel, "SMALL:fast", max_tokens=None)).max_tokens == 3
        assert list(stage.assembly.lifecycle.instances) == ["m"]
        assert in_force(kernel, "m:fast", "max_tokens") == (3, "profile fast")
        with pytest.raises(ModelNotFoundError):
            await sent(kernel, "m:slow")


async def test_of_two_tables_that_give_a_name_the_later_counts_and_ids_count_before_both(tmp_path):
    config = """
[[model]]
match = "a"
aliases = ["x", "b"]
[[model]]
match = "b"
aliases = ["X"]
"""
    async with running_kernel(tmp_path, {"a": FakeModel(), "b": FakeModel()}, config) as stage:
        assert stage.kernel.find("x").id == "b"
        assert stage.kernel.find("b").id == "b"


async def test_a_hidden_model_is_in_no_list_and_answers(tmp_path):
    config = '[[model]]\nmatch = "m"\nhidden = true\nprofiles.fast = { max_tokens = 3 }\n'
    async with running_kernel(tmp_path, {"m": FakeModel(), "n": FakeModel()}, config) as stage:
        assert [name.name for name in stage.kernel.model_settings.names()] == ["n"]
        await sent(stage.kernel, "m:fast")


async def test_names_that_nobody_has_reach_the_model_of_the_config(tmp_path):
    config = '[routing]\nunknown_model = "m"\n'
    async with running_kernel(tmp_path, {"m": FakeModel(), "n": FakeModel()}, config) as stage:
        with await stage.kernel.generate(ask("gpt-4o", max_tokens=1)) as answer:
            assert answer.model == "m"
        with await stage.kernel.generate(ask("n", max_tokens=1)) as answer:
            assert answer.model == "n"
        assert stage.kernel.decisions()[-1].asked == "gpt-4o"
        stage.kernel.configure({"routing": {"unknown_model": "refuse"}})
        with pytest.raises(ModelNotFoundError, match="gpt-4o"):
            await stage.kernel.generate(ask("gpt-4o"))
        stage.kernel.configure({"routing": {"unknown_model": "gone"}})
        with pytest.raises(ModelNotFoundError, match="gone"):
            await stage.kernel.generate(ask("gpt-4o"))


async def test_the_settings_of_an_answer_s_end_reach_the_worker(tmp_path):
    config = '[[model]]\nmatch = "m"\nstop = ["llo"]\n'
    async with running_kernel(tmp_path, {"m": FakeModel(says="hello you")}, config) as stage:
        with await stage.kernel.generate(ask("m")) as answer:
            events = [event async for event in answer]
        assert "".join(one.text for one in events if isinstance(one, TextDelta)) == "he"
        assert next(one for one in events if isinstance(one, Finished)).reason == "stop"


BROKEN = [
    ('[[model]]\nmatch = "m"\nsampling.temperature = 3', 8, "model[0].sampling.temperature"),
    ('[[model]]\nmatch = "m"\n[[model]]\nmatch = "n"\nparalel = 3', 10, "model[1].paralel"),
    ("[[model]]\nparallel = 3", 6, "model[0].match"),
    ('[model]\nmatch = "m"', 6, "model"),
    ('[[model]]\nmatch = "m"\nchat_template = "/no/file"', 8, "model[0].chat_template"),
    ('[[model]]\nmatch = "m"\nformat = "nobody"', 8, "model[0].format"),
    ('[[model]]\nmatch = "m"\ndrafts = [""]', 8, "model[0].drafts"),
    ('[[model]]\nmatch = "m"\n\n[model.profiles.x]\nstop = 3', 10, "model[0].profiles.x.stop"),
    ('[[model]]\nmatch = "m"\nfolder = 3', 8, "model[0].folder"),
]


@pytest.mark.parametrize(("config", "line", "key"), BROKEN, ids=[key for *_, key in BROKEN])
async def test_errors_in_a_table_name_file_line_and_key(tmp_path, config, line, key):
    with pytest.raises(ConfigError) as caught:
        async with running_kernel(tmp_path, {"m": FakeModel()}, config):
            pass
    (problem,) = caught.value.problems
    assert (problem.line, problem.key.partition(" ")[0]) == (line, key)
    assert problem.source.endswith("config.toml")


async def test_a_damaged_file_of_settings_is_put_aside(tmp_path):
    file = saved_file(tmp_path)
    file.parent.mkdir()
    file.write_text("{")
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        assert stage.kernel.model_settings.show("m").saved == {}
    assert file.with_suffix(".damaged").read_text() == "{"


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # of RFC 7396, without those that leave empty objects behind
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ],
)
def test_changes_are_merge_patches(target, patch, result):
    assert merged(target, patch) == result


def test_the_doctor_names_tables_and_names_that_stand_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    write_fake_models(tmp_path, {"acme-m": FakeModel(), "n": FakeModel()})
    config = """
[[model]]
match = "acme-*"
[[model]]
match = "other-*"
[[model]]
match = "n"
aliases = ["ACME-M"]
"""
    booted = boot(write_config(tmp_path, config=config))
    findings = run_diagnostics(booted, scan(booted))
    wrong = [(one.subject, one.text) for one in findings if not one.is_ok]
    assert wrong == [
        ("[[model]] 2", '"other-*" matches no model'),
        ("[[model]] 3", 'the alias "ACME-M" is a model\'s id'),
    ]


async def test_models_with_autoload_are_loaded_at_the_start(tmp_path):
    config = '[[model]]\nmatch = "b*"\nautoload = true\n'
    scripts = {name: FakeModel() for name in ("a", "b1", "b2")}
    async with running_kernel(tmp_path, scripts, config) as stage:
        booted = await asyncio.to_thread(boot, tmp_path / "config.toml")
        await autoload(stage.assembly, booted.settings, booted.verdict)
        assert sorted(stage.assembly.lifecycle.instances) == ["b1", "b2"]


async def test_a_reload_of_the_config_puts_new_tables_in_force(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await sent(stage.kernel, "m")
        path = tmp_path / "config.toml"
        before = path.read_text()
        path.write_text(f'{before}\n[[model]]\nmatch = "m"\nmax_tokens = 4\nttl_s = 9\n')
        assert await stage.kernel.reload_config() == []
        assert in_force(stage.kernel, "m", "max_tokens") == (4, "config table 1")
        assert stage.instance("m").ttl_s == 9
        path.write_text(f'{before}\n[[model]]\nmatch = "m"\nmax_tokens = 0\n')
        with pytest.raises(InvalidRequestError, match="max_tokens"):
            await stage.kernel.reload_config()
        assert in_force(stage.kernel, "m", "max_tokens") == (4, "config table 1")
        with pytest.raises(InvalidRequestError, match="only the file"):
            stage.kernel.configure({"model": {"tables": []}})


async def test_keys_that_a_missing_plugin_may_have_do_not_stop_the_start(tmp_path):
    plugins, start = ("lmx_not_there",), '[[model]]\nmatch = "m"\n'
    config = f'{start}gpu_layers = 3\nbackend = "not_there"\nmax_tokens = 4\n'
    async with running_kernel(tmp_path, {"m": FakeModel()}, config, plugins) as stage:
        assert (await sent(stage.kernel, "m", max_tokens=None)).max_tokens == 4
    config = f"{start}gpu_layers = 3\nfolder = 3\n"
    with pytest.raises(ConfigError) as caught:
        async with running_kernel(tmp_path, {"m": FakeModel()}, config, plugins):
            pass
    assert [problem.key.partition(" ")[0] for problem in caught.value.problems] == [
        "model[0].folder"
    ]


async def test_saved_values_that_the_backend_does_not_take_any_more_are_an_error_of_the_load(
    tmp_path,
):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await stage.kernel.model_settings.change("m", {"folder": str(tmp_path)})
    file = saved_file(tmp_path)
    file.write_text(file.read_text().replace(f'"{tmp_path}"', "3"))
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        with pytest.raises(ModelUnusableError, match="its settings"):
            await stage.kernel.load("m", LoadOverrides())
        await stage.kernel.model_settings.reset("m")
        await sent(stage.kernel, "m")

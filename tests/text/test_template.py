"""Chat templates are given what they were written for, whichever family they are of."""

from __future__ import annotations

import pytest

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import Message, TextPart, Tool, ToolCall

TOOL = Tool(name="look", description="Looks.", parameters={"type": "object"})

SIMPLE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TOOLED = (
    "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}({{ c.function.name }} {{ c.function.arguments|tojson }})"
    "{% endfor %}{% endfor %}"
)


def say(role, text="", **more):
    return Message(role, (TextPart(text),) if text else (), **more)


def conversation(arguments='{"a": "é"}', text=""):
    call = ToolCall("call_123", "look", arguments)
    return [
        say("user", "hi"),
        say("assistant", text, tool_calls=(call,)),
        say("tool", "seen", tool_call_id="call_123"),
    ]


def render(source, messages, tools=(), **options):
    return ChatTemplate(source, {"bos_token": "<s>"}).render(messages, tools, options)


def test_messages_and_special_texts_are_written():
    text = render("{{ bos_token }}" + SIMPLE, [say("user", "a"), say("user", "b")])
    assert text == "<s>[user]a[user]b[assistant]"


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ messages[99].content }}", "{{ x.y.z }}"])
def test_a_template_that_fails_is_an_error_of_the_request(source):
    with pytest.raises(InvalidRequestError, match="template failed"):
        render(source, [say("user", "a")])


@pytest.mark.parametrize("source", ["{% if %}", "{{ 'x'|no_such_filter }}", "{% endfor %}"])
def test_a_template_that_does_not_compile_is_refused(source):
    with pytest.raises(InvalidRequestError, match="broken"):
        ChatTemplate(source, {})


def test_tools_and_calls_are_given_as_objects():
    text = render(TOOLED, conversation(), [TOOL])
    assert text == '<look>[user]hi[assistant](look {"a": "é"})[tool]seen'


def test_arguments_are_text_where_the_template_joins_them_to_text():
    source = TOOLED.replace("c.function.arguments|tojson", "'' + c.function.arguments")
    assert '(look {"a": "é"})' in render(source, conversation(), [TOOL])


def test_arguments_are_text_where_an_object_would_be_printed_as_python():
    source = TOOLED.replace("c.function.arguments|tojson", "c.function.arguments")
    assert '(look {"a": "é"})' in render(source, conversation(), [TOOL])


def test_arguments_that_are_no_json_are_still_shown():
    assert "oops" in render(TOOLED, conversation(arguments="{oops"), [TOOL])


def test_no_arguments_are_an_empty_object():
    assert "(look {})" in render(TOOLED, conversation(arguments=""), [TOOL])


def test_content_is_none_only_where_the_template_asks_for_that():
    empty = TOOLED.replace("m.content }}", "m.content + '!' }}")
    assert "[assistant]!(look" in render(empty, conversation(), [TOOL])
    none = TOOLED.replace("m.tool_calls or []", "(m.tool_calls if m.content is none else [])")
    assert "(look" in render(none, conversation(), [TOOL])


def test_ids_are_shortened_for_a_template_that_wants_short_ones():
    check = (
        "{% for c in m.tool_calls or [] %}{% if c.id|length != 9 %}"
        "{{ raise_exception('nine, please') }}{% endif %}{{ c.id }}{% endfor %}"
        "{% if m.role == 'tool' %}={{ m.tool_call_id }}{% endif %}"
    )
    source = TOOLED.replace("[{{ m.role }}]", check)
    text = render(source, conversation(), [TOOL])
    short = text.split("=")[1][:9]
    assert text.count(short) == 2


def test_a_result_has_the_name_of_its_call():
    source = TOOLED.replace("{{ m.content }}", "{{ m.content }}{{ m.name }}")
    assert render(source, conversation(), [TOOL]).endswith("[tool]seenlook")


class Explainer(PlainFormat):
    """Says that it explained."""

    def __init__(self, *, always=False):
        self.explains_tools = always

    def explain(self, messages, tools):
        return [*messages, say("user", f"{len(messages)} messages, {len(tools)} tools")]


def test_a_template_that_knows_no_tools_gets_them_explained():
    template, chat = ChatTemplate(SIMPLE, {}), [say("user", "hi")]
    assert "1 messages, 1 tools" in template.render(chat, [TOOL], {}, Explainer())
    past = template.render(conversation(), [], {}, Explainer())
    assert "3 messages, 0 tools" in past  # a call in the past has to be told, too
    assert template.render(chat, [], {}, Explainer()) == "[user]hi[assistant]"


def test_a_template_that_knows_tools_explains_them_itself():
    assert "<look>" in ChatTemplate(TOOLED, {}).render(conversation(), [TOOL], {}, Explainer())


def test_a_template_whose_calls_nobody_can_read_is_told_of_no_tools():
    chat = [say("user", "hi")]
    text = ChatTemplate(TOOLED, {}).render(chat, [TOOL], {}, Explainer(always=True))
    assert text == "[user]hi[user]1 messages, 1 tools"


@pytest.mark.parametrize("more", ["", "{# developer #}", "{% if 'developer' == '' %}{% endif %}"])
def test_the_developer_is_the_system_where_the_template_has_no_form_for_that_role(more):
    assert render(SIMPLE + more, [say("developer", "be")]).startswith("[system]be")


def test_the_developer_is_one_where_the_template_has_a_form_for_that_role():
    known = SIMPLE.replace("[{{ m.role }}]", "{{ '#' if m.role == 'developer' else m.role }}")
    assert render(known, [say("developer", "be")]).startswith("#be")


NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
)


def test_what_the_system_says_is_put_before_the_user_where_it_is_not_known():
    messages = [say("system", "be"), say("user", "hi")]
    assert render(NO_SYSTEM + SIMPLE, messages) == "[user]be\n\nhi[assistant]"
    assert render(NO_SYSTEM + SIMPLE, messages[:1]) == "[user]be[assistant]"


def test_content_is_a_list_of_parts_where_the_template_wants_that():
    source = (
        "{% for m in messages %}{% for p in m.content %}{{ p.type }}={{ p.text }}"
        "{% endfor %}{% endfor %}"
    )
    assert render(source, [say("user", "hi")]) == "text=hi"


def test_options_reach_the_template_and_replace_nothing():
    source = "{{ reasoning_effort }}{{ bos_token }}{{ messages|length }}{{ messages[0].content }}"
    options = {"reasoning_effort": "low", "bos_token": "", "messages": []}
    template = ChatTemplate(source, {"bos_token": "<s>"})
    assert template.render([say("user", "hi")], [], options) == "low<s>1hi"


def test_a_format_names_options_as_its_templates_do():
    class Renamer(PlainFormat):
        def template_options(self, options):
            return {"level": options["reasoning_effort"]}

    template, options = ChatTemplate("{{ level }}" + SIMPLE, {}), {"reasoning_effort": "low"}
    assert template.render([say("user", "hi")], [], options, Renamer()).startswith("low")


def test_documents_are_options():
    source = "{% for d in documents %}{{ d.title }}{% endfor %}" + SIMPLE
    assert render(source, [say("user", "hi")], documents=[{"title": "T"}]).startswith("T[user]")


def test_thoughts_of_earlier_turns_are_given():
    thoughts = "{{ m.content }}{{ m.reasoning_content }}/{{ m.thinking }};"
    source = "{% for m in messages %}" + thoughts + "{% endfor %}"
    messages = [say("assistant", "text", reasoning="why"), say("assistant", reasoning="how")]
    assert render(source, messages) == "textwhy/;how/how;"


def test_a_refusal_is_told_in_the_template_s_own_words():
    with pytest.raises(InvalidRequestError, match="alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}", [say("user", "hi")])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("options", [{"a": {"b": [1] * 1000}}, {"1 x": 2}, {"self": 1}])
def test_odd_options_do_no_harm(options):
    assert render(SIMPLE, [say("user", "hi")], **options) == "[user]hi[assistant]"

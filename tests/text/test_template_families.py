"""Every message of every kind of conversation reaches the prompt, whichever family the template is
of.

The templates here are small ones, written anew: each refuses, drops and moves what the template of
its family does.
"""

# ruff: noqa: RUF001 - a family uses signs that look like others
from __future__ import annotations

import pytest

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.text.formats import find_format
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import Message, TextPart, Tool, ToolCall

TOOLS = "{% for t in tools or [] %}{{ t|tojson }}{% endfor %}"
CALLS = (
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function|tojson }}</tool_call>{% endfor %}"
)
SYSTEM = "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% endif %}"
REST = "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
FIRST_SYSTEM = SYSTEM + REST  # for those that never look for another one


def refuse(condition, words):
    return f"{{% if {condition} %}}{{{{ raise_exception('{words}') }}}}{{% endif %}}"


ALTERNATING = refuse("(m.role == 'user') != (loop.index0 % 2 == 0)", "roles must alternate")
KNOWN = refuse("m.role not in ('system', 'user', 'assistant', 'tool')", "unexpected role")
NO_SYSTEM = refuse("m.role == 'system'", "system role not supported")


def turns(body, end="", over="messages", before=""):
    return f"{before}{{% for m in {over} %}}{body}{{% endfor %}}{end}"


def by_role(**bodies):
    """Write each role in its own way, and leave the others out."""
    tests = [f"{{% if m.role == '{role}' %}}{body}{{% endif %}}" for role, body in bodies.items()]
    return "".join(tests)


def said(before, after=""):
    return f"{before}{{{{ m.content }}}}{after}"


def first_system(before, after, body, end=""):
    """Write the system message that comes first."""
    system = f"{{% if system %}}{before}{{{{ system }}}}{after}{{% endif %}}"
    return turns(body, end, over="turns", before=FIRST_SYSTEM + system)


CHATML = said("<|im_start|>{{ m.role }}\n", "<|im_end|>\n")
CHATML_END = "<|im_start|>assistant\n"
QWEN_TURN = (
    "{% if m.role == 'tool' %}" + said("<|im_start|>user\n<tool_response>\n",
    "\n</tool_response><|im_end|>\n") + "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    + CALLS + "<|im_end|>\n{% endif %}"
)  # fmt: skip
CHATML_TOOLED = by_role(
    user=said("<|im_start|>user\n", "<|im_end|>"),
    assistant=said("<|im_start|>assistant\n", CALLS + "<|im_end|>"),
    tool=said("<|im_start|>tool\n", "<|im_end|>"),
)
ALTERNATING_CHAT = ALTERNATING + by_role(user=said("[INST] ", " [/INST]"), assistant=said(" "))
COUNTED = (  # calls and results do not count
    "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    + refuse("(m.role == 'user') != (ns.i % 2 == 0)", "roles must alternate")
    + "{% set ns.i = ns.i + 1 %}{% endif %}"
)
COUNTER = "{% set ns = namespace(i=0, system='', first=true) %}"
MISTRAL_CALLS = "[TOOL_CALLS] [{% for c in m.tool_calls %}{{ c.function|tojson }}{% endfor %}]"
MISTRAL_ROLES = (
    COUNTED + "{% if m.tool_calls %}"
    + refuse("m.tool_calls[0].id|length != 9", "nine characters") + MISTRAL_CALLS
    + "{% elif m.role == 'assistant' %} {{ m.content }}</s>"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ {'content': m.content}|tojson }}[/TOOL_RESULTS]"
    "{% elif m.role == 'user' %}USER{% else %}"
    "{{ raise_exception('only user and assistant roles') }}{% endif %}"
)  # fmt: skip
LLAMA_HEAD = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
LLAMA_END = "<|start_header_id|>assistant<|end_header_id|>\n\n"
LLAMA_CALLS = (
    "{% if m.tool_calls %}" + refuse("m.tool_calls|length != 1", "single tool-calls only")
    + "{% set c = m.tool_calls[0].function %}" + LLAMA_HEAD.replace("m.role", "'assistant'")
    + '{"name": "{{ c.name }}", "parameters": {{ c.arguments|tojson }}}<|eot_id|>{% else %}'
    + said(LLAMA_HEAD, "<|eot_id|>") + "{% endif %}"
)  # fmt: skip
HARMONY_CALL = (
    "{% if m.tool_calls %}{% set c = m.tool_calls[0].function %}"
    "{% if m.content and loop.last %}<|channel|>analysis<|message|>{{ m.content }}{% endif %}"
    "<|start|>assistant to=functions.{{ c.name }}<|channel|>commentary<|message|>"
    "{{ c.arguments|tojson }}<|call|>{% else %}"
    + said("<|start|>assistant<|channel|>final<|message|>", "<|end|>") + "{% endif %}"
)  # fmt: skip
HARMONY = (
    "{% if messages[0].role in ('developer', 'system') %}<|start|>developer<|message|>"
    "{{ messages[0].content }}<|end|>{% set turns = messages[1:] %}{% else %}"
    "{% set turns = messages %}{% endif %}" + TOOLS
)
DEEPSEEK_TURNS = by_role(
    user=said("<｜User｜>"), assistant=said("<｜Assistant｜>", CALLS), tool=said("<tool_output>")
)


def named(user, assistant, system="", end=""):
    roles = {"user": user, "assistant": assistant} | ({"system": system} if system else {})
    return turns(by_role(**{role: said(f"{name}", "\n") for role, name in roles.items()}), end)


FAMILIES = {
    "chatml": turns(CHATML, CHATML_END),
    "yi": turns(CHATML, CHATML_END),
    "qwen2": turns(CHATML, CHATML_END),
    "qwen2.5": turns(QWEN_TURN, CHATML_END, before=TOOLS),
    "qwen3": turns(QWEN_TURN.replace("{{ m.content }}" + CALLS,
                   "{{ m.content.split('</think>')[-1].lstrip('\\n') }}" + CALLS),
                   CHATML_END, before=TOOLS),
    "qwen3.5": turns(KNOWN + refuse("m.role == 'system' and not loop.first",
                     "system message must be at the beginning") + QWEN_TURN, CHATML_END,
                     before=refuse("messages|map(attribute='role')|select('==', 'user')|list == []",
                                   "no user query") + TOOLS),
    "llama2": turns(ALTERNATING + by_role(user=said(
        "<s>[INST] {% if loop.first and system %}<<SYS>>{{ system }}<</SYS>>{% endif %}",
        " [/INST]"), assistant=said(" ")), over="turns", before=FIRST_SYSTEM),
    "llama3": turns(said(LLAMA_HEAD, "<|eot_id|>"), LLAMA_END),
    "llama3.1": turns(LLAMA_CALLS, LLAMA_END, over="turns", before=FIRST_SYSTEM + TOOLS
                      + "<|start_header_id|>system{{ system }}<|eot_id|>"),
    "llama4": turns(said("<|header_start|>{{ m.role }}<|header_end|>\n\n", CALLS + "<|eot|>"),
                    "<|header_start|>assistant<|header_end|>\n\n", over="turns",
                    before=FIRST_SYSTEM + TOOLS + "{{ system }}"),
    "mistral_v1": turns(NO_SYSTEM + ALTERNATING_CHAT),
    "mistral_v3": turns(MISTRAL_ROLES.replace("USER", said(
        "{% if loop.last and system %}[INST] {{ system }}\n\n{% else %}[INST] {% endif %}",
        "[/INST]")), over="turns", before=COUNTER + FIRST_SYSTEM + TOOLS),
    "mistral_v7": turns(MISTRAL_ROLES.replace("USER", said("[INST]", "[/INST]")), over="turns",
                        before=COUNTER + FIRST_SYSTEM + TOOLS
                        + "[SYSTEM_PROMPT]{{ system }}[/SYSTEM_PROMPT]"),
    "devstral": turns(refuse("m.role == 'assistant' and not m.content and not m.tool_calls",
                             "must have content or calls") + MISTRAL_ROLES.replace("USER", said(
        "[INST]", "[/INST]")), over="turns", before=COUNTER + FIRST_SYSTEM + TOOLS
        + "[SYSTEM_PROMPT]{{ system }}[/SYSTEM_PROMPT]"),
    "gemma1": turns(NO_SYSTEM + ALTERNATING + said("<start_of_turn>{{ m.role }}\n")),
    "gemma2": turns(NO_SYSTEM + ALTERNATING + said("<start_of_turn>{{ m.role }}\n"),
                    "<start_of_turn>model\n"),
    "gemma3": turns(ALTERNATING + said(
        "<start_of_turn>{{ m.role }}\n{% if loop.first %}{{ system }}\n\n{% endif %}"),
        "<start_of_turn>model\n", over="turns", before=FIRST_SYSTEM),
    "gpt_oss": turns(by_role(
        user=said("<|start|>user<|message|>", "<|end|>"), assistant=HARMONY_CALL,
        tool="<|start|>functions<|channel|>commentary<|message|>{{ m.content|tojson }}<|end|>"),
        "<|start|>assistant", over="turns", before=HARMONY),
    "deepseek_v2": turns(by_role(user=said("User: ", "\n\n"), assistant=said("Assistant: "),
                                 system=said("", "\n\n")), "Assistant:"),
    "deepseek_v3": turns(DEEPSEEK_TURNS, "<｜Assistant｜>",
                         before=turns(by_role(system=said("\n\n"))) + TOOLS),
    "deepseek_r1": turns(DEEPSEEK_TURNS, "<｜Assistant｜>", before=COUNTER + turns(
        by_role(system="{% set ns.system = m.content %}")) + "{{ ns.system }}"),
    "phi3": turns(by_role(**{role: said(f"<|{role}|>\n", "<|end|>\n")
                             for role in ("system", "user", "assistant")}), "<|assistant|>\n"),
    "phi4": turns(by_role(**{role: said(f"<|im_start|>{role}<|im_sep|>", "<|im_end|>")
                             for role in ("system", "user", "assistant")}),
                  "<|im_start|>assistant<|im_sep|>"),
    "granite": turns(said("<|start_of_role|>{{ m.role }}<|end_of_role|>", CALLS), before=TOOLS),
    "command_r": first_system("<|SYSTEM_TOKEN|>", "", ALTERNATING + by_role(
        user=said("<|USER_TOKEN|>"), assistant=said("<|CHATBOT_TOKEN|>"))),
    "falcon": named("User: ", "Falcon: ", "System: ", "Falcon:"),
    "internlm": turns(CHATML, CHATML_END),
    "glm4": turns(by_role(system=said("<|system|>\n"), user=said("<|user|>\n"),
                          assistant=said("<|assistant|>\n", CALLS), tool=said("<|observation|>")),
                  "<|assistant|>", before=TOOLS),
    "apertus": turns(refuse("m.role == 'system'", "system only first") + refuse(
        "m.role not in ('user', 'assistant', 'tool')", "unknown role") + said(
        "<|{{ m.role }}_start|>", CALLS), over="turns",
        before=FIRST_SYSTEM + TOOLS + "<|system_start|>{{ system }}<|system_end|>"),
    "smollm2": turns(CHATML, CHATML_END),
    "smollm3": first_system("<|im_start|>system\n", "<|im_end|>", CHATML_TOOLED, CHATML_END),
    "bielik": first_system("<|im_start|>system\n", "<|im_end|>", CHATML_TOOLED, CHATML_END),
    "minimax": first_system("]~b]system\n", "[e~[", TOOLS + by_role(
        user=said("]~b]user\n"), assistant=said("]~b]ai\n", CALLS), tool=said("]~b]tool\n"))),
    "nemotron_nano": first_system("<SPECIAL_10>System\n", "\n", TOOLS + by_role(
        user=said("<SPECIAL_11>User\n"), assistant=said("<SPECIAL_11>Assistant\n", CALLS),
        tool=said("<TOOL_RESPONSE>"))),
    "reka": turns(by_role(user=said("human: {% if loop.first %}{{ system }}{% endif %}", " <sep> "),
                          assistant=said("assistant: ")), over="turns", before=FIRST_SYSTEM),
    "olmo": turns(by_role(system=said("<|system|>\n"), user=said("<|user|>\n"),
                          assistant=said("<|assistant|>\n"))),
    "stablelm": turns(CHATML, CHATML_END),
    "zephyr": turns(by_role(system=said("<|system|>\n"), user=said("<|user|>\n"),
                            assistant=said("<|assistant|>\n"))),
    "vicuna": first_system("", " ", by_role(user=said("USER: "), assistant=said("ASSISTANT: "))),
    "alpaca": first_system("", "\n\n", by_role(user=said("### Instruction:\n"),
                                               assistant=said("### Response:\n"))),
    "openchat": turns(said("GPT4 Correct {{ m.role.title() }}: ", "<|end_of_turn|>")),
    "solar": turns(by_role(system=said("### System:\n"), user=said("### User:\n"),
                           assistant=said("### Assistant:\n"))),
    "jamba": turns(by_role(user=said("<|bom|><|user|>"), tool=said("<|bom|><|tool|>"),
                           assistant=said("<|bom|><|assistant|>", CALLS)), over="turns",
                   before=FIRST_SYSTEM + TOOLS + "{{ system }}"),
    "exaone": turns(said("[|{{ m.role }}|]", CALLS + "[|endofturn|]"), before=TOOLS),
    "hunyuan": first_system("", "<｜hy_place▁holder▁no▁3｜>", by_role(
        user=said("<｜hy_User｜>"), assistant=said("<｜hy_Assistant｜>"))),
    "kimi": turns(said("<|im_{{ m.role }}|>", CALLS + "<|im_end|>"), before=TOOLS),
    "seed_oss": turns(by_role(user=said("<seed:bos>user\n"), tool=said("<seed:bos>tool\n"),
                              assistant=said("<seed:bos>assistant\n", CALLS)), over="turns",
                      before=FIRST_SYSTEM + TOOLS + "<seed:bos>system\n{{ system }}<seed:eos>"),
    "ernie": first_system("", "\n", by_role(user=said("User: "), assistant=said("Assistant: "))),
    "lfm2": turns(CHATML, CHATML_END, over="turns", before=FIRST_SYSTEM + "{{ system }}"),
    "tulu": turns(by_role(system=said("<|system|>\n"), user=said("<|user|>\n"),
                          assistant=said("<|assistant|>\n"))),
    "hermes": turns(by_role(system=said("<|im_start|>system\n"), user=said("<|im_start|>user\n"),
                            assistant=said("<|im_start|>assistant\n", CALLS),
                            tool=said("<tool_response>")), CHATML_END, before=TOOLS),
}  # fmt: skip

TOOL = Tool(name="look", description="Looks.", parameters={"type": "object", "properties": {}})
CALL_ONE = ToolCall("c1", "look", '{"at": "mountain"}')
CALL_TWO = ToolCall("c2", "look", '{"at": "valley"}')


def say(role, text="", *calls, of=None):
    return Message(role, (TextPart(text),) if text else (), tool_calls=calls, tool_call_id=of)


ASKED = [say("system", "be amber"), say("user", "ask birch")]
CALLED = [*ASKED, say("assistant", "", CALL_ONE), say("tool", "found cedar", of="c1")]
CONVERSATIONS = {
    "plain": [*ASKED, say("assistant", "tell cedar"), say("user", "ask delta")],
    "two systems": [say("system", "be amber"), say("system", "be birch"), say("user", "ask cedar")],
    "late system": [*ASKED, say("assistant", "tell cedar"), say("system", "be delta"),
                    say("user", "ask ember")],
    "system at the end": [*ASKED, say("assistant", "tell cedar"), say("user", "ask delta"),
                          say("system", "be ember")],
    "system alone": [say("system", "be amber")],
    "users in a row": [say("user", "ask amber"), say("user", "ask birch")],
    "assistants in a row": [say("user", "ask amber"), say("assistant", "tell birch"),
                            say("assistant", "tell cedar"), say("user", "ask delta")],
    "assistant first": [say("assistant", "tell amber"), say("user", "ask birch")],
    "tool": CALLED,
    "tool, user": [*CALLED, say("user", "ask delta")],
    "tool, system, user": [*CALLED, say("system", "be delta"), say("user", "ask ember")],
    "text beside a call": [*ASKED, say("assistant", "tell cedar", CALL_ONE),
                           say("tool", "found delta", of="c1"), say("assistant", "tell ember"),
                           say("user", "ask fjord")],
    "parallel calls": [*ASKED, say("assistant", "", CALL_ONE, CALL_TWO),
                       say("tool", "found cedar", of="c1"), say("tool", "found delta", of="c2"),
                       say("assistant", "tell ember"), say("user", "ask fjord")],
    "developer": [say("developer", "be amber"), say("user", "ask birch")],
    "system, developer": [say("system", "be amber"), say("developer", "be birch"),
                          say("user", "ask cedar")],
    "late developer": [*ASKED, say("assistant", "tell cedar"), say("developer", "be delta"),
                       say("user", "ask ember")],
}  # fmt: skip
TEMPLATES = {}


def rendered(family, messages, tools=()):
    source = FAMILIES[family]
    if family not in TEMPLATES:
        TEMPLATES[family] = ChatTemplate(source, {"bos_token": "<s>"})
    return TEMPLATES[family].render(messages, tools, {}, find_format(source))


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_message_reaches_the_prompt_in_order(family, conversation):
    messages = CONVERSATIONS[conversation]
    uses_tools = any(message.tool_calls for message in messages)
    text = rendered(family, messages, [TOOL] if uses_tools else [])
    for message in messages:
        for call in message.tool_calls:
            assert call.arguments.split('"')[3] in text
    # Some templates write the first instructions late, as their models were trained.
    led = [one for one in messages if one.text and one.role not in ("system", "developer")]
    positions = [text.find(one.text) for one in led]
    assert positions == sorted(positions)
    for message in messages:
        assert text.count(message.text) == 1 or not message.text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_late_system_message_stays_where_it_was(family):
    text = rendered(family, CONVERSATIONS["late system"])
    assert text.index("tell cedar") < text.index("be delta") < text.index("ask ember")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_template_takes_is_left_as_it_is(family):
    """An ordinary conversation is what the template makes of it, and nothing is added."""
    text = rendered(family, [say("user", "ask amber"), say("assistant", "tell birch"),
                             say("user", "ask cedar")])  # fmt: skip
    assert "[System message]" not in text
    assert "noted" not in text
    assert "begins" not in text


def test_a_message_that_no_folding_saves_is_named():
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    messages = [say("user", "ask amber"), say("assistant", "tell birch"), say("user", "ask cedar")]
    with pytest.raises(InvalidRequestError, match="'assistant'") as caught:
        ChatTemplate(source, {}).render(messages)
    assert caught.value.param == "messages[1]"


def test_a_result_cannot_pose_as_the_user_who_speaks_after_it():
    text = rendered("mistral_v3", CONVERSATIONS["tool, user"], [TOOL])
    assert "ask delta" in text.split("[/TOOL_RESULTS]")[1]


@pytest.mark.parametrize("family", ["mistral_v3", "devstral", "llama3.1", "gpt_oss"])
def test_a_call_beside_text_is_still_written_as_a_call(family):
    text = rendered(family, CONVERSATIONS["text beside a call"], [TOOL])
    assert "[Called" not in text
    assert text.index("tell cedar") < text.index("mountain") < text.index("found delta")


def test_only_the_system_messages_of_a_family_that_takes_one_are_merged():
    messages = CONVERSATIONS["two systems"]
    assert "be amber\n\nbe birch" in rendered("gpt_oss", messages)
    assert rendered("chatml", messages).count("<|im_start|>system") == 2


# --- tools whose schema a template cannot write ---

PICKY = turns(
    CHATML_TOOLED + "{% for t in tools or [] %}{{ t.function.name }}: {{ t.function.description }}"
    "{% for name, one in t.function.parameters.properties.items() %}"
    "{{ name + ' ' + one.type }}{% if one.enum %}{{ ' default ' + one.default }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "enum": ["red", None], "default": None},
        {"type": "integer", "enum": [1, 2], "default": 1},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "string"}]},
        True,
    ],
)
def test_a_tool_whose_schema_a_template_cannot_write_is_told_in_plain_words(schema):
    tool = Tool(name="paint", description="Paints.",
                parameters={"type": "object", "properties": {"colour": schema}})  # fmt: skip
    good = {"type": "object", "properties": {"size": {"type": "number"}}}
    text = ChatTemplate(PICKY, {}).render(
        [say("user", "hi")], [tool, Tool(name="cut", parameters=good)]
    )
    assert "paint: Paints." in text
    assert '"colour": ' in text
    assert "size number" in text  # the others are written as ever


# --- what an agent sends: each turn is the last one, and more ---


def agent_turns():
    """Return the conversation of an agent as it is before each answer."""
    calls = [ToolCall(f"c{n}", "look", f'{{"at": "mountain {n}"}}') for n in range(4)]
    results = [say("tool", f"found {n}", of=f"c{n}") for n in range(4)]
    whole = [
        *ASKED, say("system", "be cedar"),
        say("assistant", "tell delta", calls[0]), results[0],
        say("assistant", "", *calls[1:3]), *results[1:3], say("system", "be ember"),
        say("assistant", "tell fjord"), say("user", "ask gorse"), say("user", "ask heath"),
        say("system", "be iris"),
        say("assistant", "", calls[3]), results[3], say("user", "ask juniper"),
        say("assistant", "tell kelp"),
    ]  # fmt: skip
    return [whole[:end] for end, message in enumerate(whole) if message.role == "assistant"]


# This family writes the system message before the last of the user's, as its models were trained.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mistral_v3"])
def test_the_prompt_of_an_agent_only_grows(family):
    words = ("ask", "be ", "tell", "found", "mountain")
    before, *others = (rendered(family, messages, [TOOL]) for messages in agent_turns())
    for text in others:
        pairs = enumerate(zip(before, text, strict=False))
        same = next((at for at, (old, new) in pairs if old != new), len(before))
        # No more than what opens the answer.
        assert not any(word in before[same:] for word in words)
        before = text

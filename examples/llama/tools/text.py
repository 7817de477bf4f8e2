#!/usr/bin/env python3
"""Turn text into the token lines the llama example reads, and the token lines it writes into text.

A token line holds the ids of one text with commas between. DIR is a checkpoint directory with tokenizer.json
and, for --chat, tokenizer_config.json; --chat renders its chat template, which for SmolLM2 adds the model's
own system prompt unless --system gives one.

    python text.py encode --model DIR "Once upon a time" "The"
    python text.py encode --model DIR --chat "What is the capital of France?"
    python text.py decode --model DIR < tokens.txt

Exit status: 0 done, 1 unreadable checkpoint or token line, 2 wrong arguments.
"""

import argparse
import json
import sys
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from compare_tokens import parse_token_lines


def load_tokenizer(model):
    file = model / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: make the checkpoint with convert_smollm2.py")
    return Tokenizer.from_file(str(file))


def load_chat_template(model):
    """The checkpoint's chat template, as a function from a list of messages to the text of the prompt."""
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    if not isinstance(config.get("chat_template"), str):
        raise ValueError(f"{model} has no chat template in tokenizer_config.json: encode without --chat")
    # Sandboxed, as a template is code from whoever made the checkpoint; the trimming is what templates expect.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(config["chat_template"])
    special_tokens = {name: config[name] for name in ("bos_token", "eos_token") if name in config}
    return lambda messages: template.render(messages=messages, add_generation_prompt=True, **special_tokens)


def chat_messages(user, system=None):
    messages = [{"role": "system", "content": system}] if system is not None else []
    return messages + [{"role": "user", "content": user}]


def encode(model, texts, chat=False, system=None):
    """Ids of each of `texts`, as prompts to continue or, with `chat`, as questions to answer."""
    tokenizer = load_tokenizer(model)
    if chat:
        render = load_chat_template(model)
        texts = [render(chat_messages(text, system)) for text in texts]
    # A chat template writes the special tokens itself; a plain prompt gets those its tokenizer wants in front.
    return [tokenizer.encode(text, add_special_tokens=not chat).ids for text in texts]


def decode(model, token_lists):
    """Text of each of `token_lists`, without special tokens."""
    tokenizer = load_tokenizer(model)
    vocabulary_size = tokenizer.get_vocab_size()
    for number, tokens in enumerate(token_lists, start=1):
        unknown = [token for token in tokens if not 0 <= token < vocabulary_size]
        if unknown:
            raise ValueError(f"line {number} has the id {unknown[0]}, outside the vocabulary of {vocabulary_size}")
    return [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in token_lists]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Turn text into token lines, or token lines into text.")
    commands = parser.add_subparsers(dest="command", required=True)

    to_tokens = commands.add_parser("encode", help="print one token line per text")
    to_tokens.add_argument("--model", type=Path, required=True, metavar="DIR", help="checkpoint directory")
    to_tokens.add_argument("--chat", action="store_true", help="render each text with the chat template")
    to_tokens.add_argument("--system", metavar="TEXT", help="system prompt for --chat")
    to_tokens.add_argument("texts", nargs="+", metavar="TEXT")

    to_text = commands.add_parser("decode", help="print the text of each token line on standard input")
    to_text.add_argument("--model", type=Path, required=True, metavar="DIR", help="checkpoint directory")

    options = parser.parse_args(arguments)
    if options.command == "encode" and options.system is not None and not options.chat:
        parser.error("--system needs --chat")
    try:
        if options.command == "encode":
            for ids in encode(options.model, options.texts, options.chat, options.system):
                print(",".join(map(str, ids)))
        else:
            for text in decode(options.model, parse_token_lines(sys.stdin)):
                print(text)
    except (OSError, ValueError, TemplateError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

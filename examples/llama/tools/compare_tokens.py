#!/usr/bin/env python3
"""Compare what the llama example computed with the expected results.

Tokens: one file per run of the example, one line per prompt, each line the generated ids with commas between.
The lines follow the order of the expected file, or the order of --names where the run had only some prompts.

    python compare_tokens.py --expected expected.json --label "1 rank" one.txt --label "3 ranks" three.txt
    python compare_tokens.py --expected expected.json --names story,capital --label "pipeline" pipeline.txt

Logits: .npy files, pairwise. The error is max |actual - reference| / max |reference|.

    python compare_tokens.py --logits story.npy --reference tests/data/smollm2/story.npy

Prints one line per run or pair. Exit status: 0 all equal, 1 a difference, 2 wrong arguments or unreadable input.
"""

import argparse
import json
import sys
from pathlib import Path

# A float32 forward pass of SmolLM2 in numpy comes within 5e-6 of the references; the rest is room for other
# orders of addition.
LOGITS_THRESHOLD = 5e-5


def parse_token_lines(lines):
    """Lists of ids from lines such as `504,3575,282`; an empty line is an empty list."""
    parsed = []
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        try:
            parsed.append([int(token) for token in line.split(",")] if line else [])
        except ValueError:
            raise ValueError(f"line {number} is not a comma-separated line of token ids: {line[:60]!r}") from None
    return parsed


def first_difference(expected, actual):
    """Where two lists of ids part, in words; None where they are equal."""
    for position, (wanted, got) in enumerate(zip(expected, actual)):
        if wanted != got:
            return f"token {position}: expected {wanted}, got {got}"
    if len(expected) != len(actual):
        return f"expected {len(expected)} tokens, got {len(actual)}"
    return None


def differences_of_run(prompts, lines):
    """What differs between the expected `prompts` and one run's `lines`, one string each."""
    if len(lines) != len(prompts):
        return [f"expected {len(prompts)} lines, got {len(lines)}"]
    compared = ((prompt["name"], first_difference(prompt["greedy"], tokens))
                for prompt, tokens in zip(prompts, lines))
    return [f"{name}: {difference}" for name, difference in compared if difference]


def compare_tokens(prompts, runs):
    """Prints one line per run; True when every run has the expected tokens."""
    all_equal = True
    for label, file in runs:
        try:
            lines = parse_token_lines(Path(file).read_text(encoding="utf-8").splitlines())
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        differences = differences_of_run(prompts, lines)
        if differences:
            all_equal = False
            print(f"{label}: DIFFERENT: " + "; ".join(differences))
        else:
            print(f"{label}: equal ({len(prompts)} prompts, {sum(map(len, lines))} tokens)")
    return all_equal


def compare_logits(actual_files, reference_files, threshold):
    """Prints one line per pair of files; True when every error is within `threshold`."""
    import numpy as np  # here, because comparing tokens needs nothing but the standard library

    all_within = True
    for actual_file, reference_file in zip(actual_files, reference_files):
        actual = np.load(actual_file).astype(np.float64)
        reference = np.load(reference_file).astype(np.float64)
        if actual.shape != reference.shape:
            raise ValueError(f"{actual_file} has shape {actual.shape}, {reference_file} has {reference.shape}")
        error = np.abs(actual - reference).max() / np.abs(reference).max()
        within = bool(error <= threshold)  # false for NaN too
        all_within = all_within and within
        print(f"{actual_file}: {'within' if within else 'ABOVE'} the threshold: "
              f"error {error:.2e}, threshold {threshold:g}")
    return all_within


def choose_prompts(expected_file, names):
    """The prompts of `expected_file`: those called `names`, in that order, or all."""
    prompts = json.loads(Path(expected_file).read_text(encoding="utf-8"))
    if names is None:
        return prompts
    by_name = {prompt["name"]: prompt for prompt in prompts}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"{expected_file} has no prompt {', '.join(unknown)}; it has {', '.join(by_name)}")
    return [by_name[name] for name in names]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Compare generated tokens or logits with the expected ones.")
    tokens = parser.add_argument_group("tokens")
    tokens.add_argument("--expected", metavar="JSON", help="prompts and their expected tokens")
    tokens.add_argument("--label", nargs=2, action="append", metavar=("NAME", "FILE"),
                        help="a run: its name in the report and its token lines; may be repeated")
    tokens.add_argument("--names", type=lambda names: names.split(","), metavar="A,B",
                        help="prompts the runs had, in their order; all without it")
    logits = parser.add_argument_group("logits")
    logits.add_argument("--logits", nargs="+", metavar="NPY", help="logits the example wrote")
    logits.add_argument("--reference", nargs="+", metavar="NPY", help="their references, in the same order")
    logits.add_argument("--threshold", type=float, default=LOGITS_THRESHOLD, help="largest error (%(default)s)")
    options = parser.parse_args(arguments)

    if not options.expected and not options.logits:
        parser.error("give --expected with --label, or --logits with --reference")
    if bool(options.expected) != bool(options.label):
        parser.error("--expected and --label go together")
    if len(options.logits or []) != len(options.reference or []):
        parser.error("--logits and --reference need as many files each")

    equal = True
    try:
        if options.expected:
            equal = compare_tokens(choose_prompts(options.expected, options.names), options.label)
        if options.logits:
            equal = compare_logits(options.logits, options.reference, options.threshold) and equal
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Leaves out every synchronisation of the library's CUDA headers in turn, and asks whether the tests notice.

    tests/double/dropped_synchronisation.py --work FOLDER [--only event.hpp] [--tests cuda_memory] [--list]

A synchronisation is what orders a stream, or the host, behind something: recording an event, waiting for it, asking
whether it or a stream is done, waiting for NCCL. They are found by what they call, in every header that has to do with
CUDA. In a copy of the tree each gets a switch, so that the tests on the double are built once, and then run with one of
them switched off after the other, under several schedules, until one fails. What no test notices is tried once more
under ThreadSanitizer. Those in REDUNDANT may survive, for the reason given there. The last line is the score; the exit
status is 1 where anything else survives, or where a test fails with nothing left out.

Needs only Python's standard library, CMake and what the tests need.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

# (header, text of the synchronisation): why nothing changes without it.
REDUNDANT = {}

# What is looked for, matched where the call begins, and the value that says "nothing to wait for"; None: nothing, or
# the zero of its type.
CODES = (
    r"\bcuda(?:EventRecord|EventRecordWithFlags|StreamWaitEvent|EventQuery|StreamQuery|EventSynchronize"
    r"|StreamSynchronize|DeviceSynchronize)\s*\("
)
OBJECT = r"(?:\b\w+(?:\(\w*\)|\[[\w.]+\])?(?:\.|->))"
SYNCHRONISATIONS = [
    (CODES, "cudaSuccess"),
    (OBJECT + r"+(?:record|order_before|order)\(", "(void)0"),
    (r"(?<![\w.>:~])(?:record|join)\((?=\);)", "(void)0"),
    (r"(?<![\w.>:])synchronize\((?!at<)", "(void)0"),
    (OBJECT + r"+set\((?=where)", "(void)0"),
    (OBJECT + r"+(?:over|reached)\((?!\))", "true"),
    (OBJECT + r"+(?:wait|wait_before_freeing)\((?=\w)", "true"),
    (OBJECT + r"+wait\((?=\))", "(void)0"),
    (OBJECT + r"+settle\(", "ncclSuccess"),
    (r"(?<![.>:\w])(?:detail::)?wait_for\(", None),
]
ABOUT_CUDA = re.compile(r"cuda|nccl|event_pool|start_where")
# The double's own tests do not use the library.
NOT_OURS = {"cuda_double", "nccl_double"}
KINDS = (
    "race|out_of_bounds|use_after_free|free_in_flight|wrong_device|bad_handle|bad_argument|capture|mismatch"
    "|communicator|leak|unfinished"
)

SWITCH = """#pragma once
#include <atomic>
#include <cstdio>
#include <cstdlib>
namespace shardkit_left_out {
inline constexpr int sites = %d;
struct reached_sites {
  std::atomic<bool> reached[sites + 1];
  const int left_out = std::getenv("SHARDKIT_LEFT_OUT") ? std::atoi(std::getenv("SHARDKIT_LEFT_OUT")) : 0;
  ~reached_sites() {
    const char* const file = std::getenv("SHARDKIT_REACHED");
    std::FILE* const out = file ? std::fopen(file, "a") : nullptr;
    for (int site = 0; out && site <= sites; ++site)
      if (reached[site]) std::fprintf(out, "%%d\\n", site);
    if (out) std::fclose(out);
  }
};
inline bool is(int site) {
  static reached_sites all;
  all.reached[site].store(true, std::memory_order_relaxed);
  return site == all.left_out;
}
template <class Wait>
auto unless(int site, Wait wait) -> decltype(wait()) {
  if (is(site)) return decltype(wait())();
  return wait();
}
}
"""


def without_comments(text):
    """The text with comments and literals blanked, every other character at its place."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return token.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def end_of_call(code, opening):
    depth = 0
    for place in range(opening, len(code)):
        depth += {"(": 1, ")": -1}.get(code[place], 0)
        if depth == 0:
            return place + 1
    raise ValueError("unbalanced parentheses")


class Site:
    def __init__(self, number, header, line, text):
        self.number, self.header, self.line, self.text = number, header, line, " ".join(text.split())

    def __str__(self):
        return f"{self.header}:{self.line}: {self.text}"

    @property
    def reason(self):
        return REDUNDANT.get((self.header, self.text))


def put_switches(include, only):
    """Gives every synchronisation below `include` a switch; returns the sites."""
    sites = []
    for path in sorted(include.rglob("*")):
        header = path.relative_to(include / "shardkit").as_posix() if path.is_file() else ""
        if path.suffix not in (".hpp", ".cuh") or only not in header:
            continue
        text = path.read_text()
        if not ABOUT_CUDA.search(without_comments(text)):
            continue
        edits = []
        code = without_comments(text)
        for pattern, value in SYNCHRONISATIONS:
            for found in re.finditer(pattern, code):
                if re.search(r"(?:\bvoid|\bwait_result|\bncclResult_t|\bauto)\s+$", code[: found.start()]):
                    continue  # its definition
                edits.append((found.start(), end_of_call(code, found.end() - 1), value))
        # One that stands inside another is reached through it; the outer one alone would do, so both get a switch.
        before, after = {}, {}
        for start, end, value in edits:
            site = Site(len(sites) + 1, header, code.count("\n", 0, start) + 1, text[start:end])
            sites.append(site)
            if value is None:
                opening, closing = f"::shardkit_left_out::unless({site.number}, [&] {{ return ", "; })"
            else:
                whole = "(void)(" if value == "(void)0" else "("
                opening, closing = f"(::shardkit_left_out::is({site.number}) ? {value} : {whole}", "))"
            before[start] = before.get(start, "") + opening
            after[end] = closing + after.get(end, "")
        pieces = [after.get(i, "") + before.get(i, "") + character for i, character in enumerate(text)]
        if edits:
            path.write_text("".join(pieces).replace("#pragma once", "#pragma once\n#include <left_out.hpp>", 1))
    (include / "left_out.hpp").write_text(SWITCH % len(sites))
    return sites


def run(command, **how):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)


class Build:
    """The tests on the double, built from the tree with switches."""

    def __init__(self, tree, folder, definitions, tests, jobs):
        self.folder, self.tests, self.jobs = folder, tests, jobs
        # Unoptimised programs are built in half of the time, and mostly wait.
        options = ["-GNinja", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O0"]
        options += [f"-DSHARDKIT_{part}=OFF" for part in ("BUILD_EXAMPLES", "BUILD_BENCHMARKS", "INSTALL")]
        if shutil.which("ccache"):
            options.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
        self.need(["cmake", "-S", tree, "-B", folder, *options, *(f"-D{one}" for one in definitions)])
        self.programs = self.listed()
        if not self.programs:
            sys.exit("there are no tests on the double here; are CUDA and NCCL found?")

    def listed(self):
        """The tests: under ten schedules one program, under MPI one for each number of ranks."""
        tests = json.loads(run(["ctest", "--test-dir", self.folder, "-L", "cuda_double", "--show-only=json-v1"]).stdout)
        programs = {}
        for test in tests["tests"]:
            properties = {one["name"]: one["value"] for one in test["properties"]}
            environment = dict(one.split("=", 1) for one in properties.get("ENVIRONMENT", []))
            schedule = environment.pop("SHARDKIT_DOUBLE_SCHEDULE", None)
            suite = pathlib.Path(properties.get("WORKING_DIRECTORY", "")).name
            labels = set(properties.get("LABELS", []))
            runs = schedule or ".ranks_" in test["name"]
            if self.tests not in test["name"] or suite in NOT_OURS or "nightly" in labels or not runs:
                continue
            name = test["name"].rsplit(".", 1)[0] if schedule else test["name"]
            one = programs.setdefault(name, {"labels": labels, "environment": environment, "schedules": []})
            one["target"] = test["name"].split(".")[0]
            one["command"] = test.get("command")  # known once it is built
            one["schedules"].append(schedule)
        return programs

    @staticmethod
    def need(command):
        done = run(command)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-8000:]}")

    def build(self, label=None):
        if label:
            self.programs = {name: one for name, one in self.programs.items() if label in one["labels"]}
        targets = sorted({one["target"] for one in self.programs.values()})
        if not targets:
            return
        self.need(["cmake", "--build", self.folder, "-j", str(self.jobs), "--target", *targets])
        built = self.listed()
        self.programs = {name: built[name] for name in self.programs}

    def has_schedule(self, name, schedule):
        return schedule in self.programs[name]["schedules"] or None in self.programs[name]["schedules"]

    def try_one(self, name, schedule, left_out, reached=None):
        """None where the program ends well, else by what it is caught."""
        one = self.programs[name]
        environment = {**os.environ, **one["environment"]}
        environment.update(SHARDKIT_DOUBLE_SCHEDULE=schedule, SHARDKIT_LEFT_OUT=str(left_out))
        environment["TSAN_OPTIONS"] = "exitcode=66:halt_on_error=1:atexit_sleep_ms=0"
        if reached:
            environment["SHARDKIT_REACHED"] = str(reached)
        try:
            # What is left out is caught by the first check that fails.
            early = ["--abort-after=1"] if left_out else []
            done = run([*FIXED_ADDRESSES, *one["command"], *early], env=environment, timeout=90)
        except subprocess.TimeoutExpired:
            return f"{name} ({schedule}): it hangs"
        if done.returncode == 0:
            return None
        case = re.search(r"TEST CASE:\s*(.*)", done.stdout)
        kinds = sorted(set(re.findall(rf"^\s*(?:.*values: CHECK\( )?({KINDS}): ", done.stdout, re.M)))
        if "ThreadSanitizer: data race" in done.stdout:
            kinds.append("ThreadSanitizer")
        how = " and ".join(kinds) or ("a wrong result" if case else f"status {done.returncode}")
        return f"{name} ({schedule}): {how}" + (f' in "{case.group(1).strip()}"' if case else "")


def fixed_addresses():
    """ThreadSanitizer does not get along with much address randomisation."""
    try:
        return ["setarch", "-R"] if run(["setarch", "-R", "true"]).returncode == 0 else []
    except FileNotFoundError:
        return []


FIXED_ADDRESSES = fixed_addresses()


def first_catch(build, site, programs, schedules):
    for name in programs:
        for schedule in schedules:
            if build.has_schedule(name, schedule):
                caught = build.try_one(name, schedule, site.number)
                if caught:
                    return caught
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a folder for the copy and its builds")
    parser.add_argument("--only", default="", help="only headers whose path contains this")
    parser.add_argument("--tests", default="", help="only tests whose name contains this")
    parser.add_argument("--schedules", nargs="+", default=["late", "eager", "jitter:1", "jitter:2"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="only tell what would be left out")
    parser.add_argument("-D", dest="definitions", action="append", default=[], help="for CMake")
    options = parser.parse_args()

    root = pathlib.Path(__file__).resolve().parents[2]
    tree = options.work.resolve() / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(root, tree, ignore=shutil.ignore_patterns("build*", ".*", "shared"))
    sites = put_switches(tree / "include", options.only)
    if options.list:
        print(*sites, f"{len(sites)} synchronisations", sep="\n")
        return 0

    build = Build(tree, options.work.resolve() / "build", options.definitions, options.tests, options.jobs)
    build.build()
    # First without leaving anything out: who reaches what, and how long that takes.
    reached, seconds = {}, {}

    def try_all(name):
        file = options.work.resolve() / f"reached.{name}"
        file.unlink(missing_ok=True)
        began = time.monotonic()
        for schedule in options.schedules:
            if build.has_schedule(name, schedule):
                wrong = build.try_one(name, schedule, 0, file)
                if wrong:
                    return wrong
        seconds[name] = time.monotonic() - began
        reached[name] = set(map(int, file.read_text().split())) if file.exists() else set()
        return None

    with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for wrong in filter(None, pool.map(try_all, build.programs)):
            sys.exit(f"nothing is left out, and yet: {wrong}")
    order = sorted(reached, key=lambda name: seconds[name])
    print(f"{len(sites)} synchronisations, {len(order)} programs, {sum(seconds.values()):.0f} s", flush=True)

    def try_site(site):
        caught = first_catch(build, site, [name for name in order if site.number in reached[name]], options.schedules)
        print(f"{site}\n    {'caught by ' + caught if caught else 'survives'}", flush=True)
        return caught

    with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
        caught = dict(zip(sites, pool.map(try_site, sites)))

    suspects = [site for site in sites if not caught[site] and not site.reason]
    if suspects:
        watched = Build(tree, options.work.resolve() / "watched", [*options.definitions, "SHARDKIT_SANITIZE=thread"],
                        options.tests, options.jobs)
        watched.build("threads")
        for site in suspects:
            programs = [name for name in watched.programs if site.number in reached.get(name, ())]
            caught[site] = first_catch(watched, site, programs, ["eager", "late", "jitter:1"])

    survivors = [site for site in sites if not caught[site]]
    unexplained = [site for site in survivors if not site.reason]
    for site in survivors:
        tests = [name for name in order if site.number in reached[name]]
        print(f"survives: {site}\n    {site.reason or 'no test notices; reached by ' + (', '.join(tests) or 'none')}")
    explained = f", {len(survivors) - len(unexplained)} redundant" if len(survivors) > len(unexplained) else ""
    print(f"{len(sites) - len(survivors)} of {len(sites)} caught{explained}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

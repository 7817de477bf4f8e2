// `--device cuda`: the tokens and logits of the host, by ranks that share a GPU and by ranks with one each, and what is
// said where there is none. The program under test is linked with the double of CUDA, or, where LLAMA_ON_GPU names one,
// with CUDA itself.
#ifdef MPIEXEC
#include "launcher.hpp"
#endif
#include "npy.hpp"
#include "reference.hpp"

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

using namespace llama_test;

namespace {

constexpr double tolerance = 5e-5;
constexpr mesh gpu_meshes[] = {{1, 1, 1}, {2, 1, 1}, {1, 2, 1}, {2, 1, 2}, {4, 1, 1}, {2, 2, 1}};

const char* on_gpu() { return std::getenv("LLAMA_ON_GPU"); }
const char* program() { return on_gpu() != nullptr ? on_gpu() : LLAMA_ON_DOUBLE; }

command_line on_cuda(const command_line& arguments) { return command_line{program(), "--device", "cuda"} + arguments; }

// A machine for the double; a GPU is what it is.
std::vector<std::string> machine(const char* devices, const char* schedule) {
  return {std::string("SHARDKIT_DOUBLE_DEVICES=") + devices, std::string("SHARDKIT_DOUBLE_SCHEDULE=") + schedule};
}

// Whether `ended` is a refusal for want of a GPU; then the line is printed by which ctest knows that nothing was
// tested.
bool skips(const outcome& ended) {
  const bool absent = on_gpu() != nullptr && contains(ended.errors, "no GPU can be used here");
  if (absent) std::cout << "skipped: " << ended.errors;
  return absent;
}

// What it printed; nothing where there is no GPU.
bool ran_well(const outcome& ended) {
  if (skips(ended)) return false;
  INFO(ended.errors);
  CHECK(ended.in_time);
  CHECK(ended.status == 0);  // 76: the double found something
  return true;
}

}  // namespace

TEST_CASE("On GPUs several prompts get the tokens of the host") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  const directory folder;
  const std::vector<token_list> prompts = prompts_of({1, 9, 23, 2});
  std::vector<token_list> expected;
  for (const token_list& prompt : prompts) expected.push_back(reference.greedy(prompt, 5));
  write_file(folder / "prompts", lines_of(prompts));
  const command_line arguments = {"--model", model.path(), "--tokens-file", folder / "prompts",
                                  "--steps", "5",          "--print-tokens"};
  REQUIRE(output_of(llama(arguments)) == lines_of(expected));
  const std::vector<std::vector<std::string>> machines = {
      machine("1", "late"), machine("4", "eager"), machine("2", "jitter:1")};  // shared, one for each rank, or neither
  for (const mesh& ranks : gpu_meshes)
    for (const auto& on : machines) {
      CAPTURE(ranks.name());
      CAPTURE(on[0]);
      CAPTURE(on[1]);
      const outcome ended = run(on_cuda(arguments + ranks.arguments()), on);
      if (!ran_well(ended)) return;
      CHECK(ended.output == lines_of(expected));
      if (on_gpu() != nullptr) break;
    }
}

TEST_CASE("On GPUs the logits agree with a serial forward pass, also beyond the keys that a block takes at once") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  const directory folder;
  for (const std::size_t length : {1u, 128u, 150u}) {
    const token_list prompt = prompt_of(length);
    const std::vector<double> expected = reference.logits(prompt);
    for (const mesh& ranks : {mesh{1, 1, 1}, mesh{2, 2, 1}}) {
      CAPTURE(ranks.name());
      CAPTURE(length);
      const outcome ended = run(on_cuda({"--model", model.path(), "--tokens", text_of(prompt), "--steps", "1",
                                         "--print-tokens", "--logits", folder / "logits.npy"}) +
                                    ranks.arguments(),
                                machine("2", "late"));
      if (!ran_well(ended)) return;
      CHECK(relative_error(read_npy(folder / "logits.npy"), expected) <= tolerance);
    }
  }
}

TEST_CASE("Without a GPU, and in a program without CUDA, the refusal says what to do") {
  const tiny_checkpoint model;
  const command_line arguments = {"--model", model.path(), "--tokens", "1,2", "--steps", "3", "--tensor", "2"};
  if (on_gpu() == nullptr) {
    const std::string refusal = refusal_of(on_cuda(arguments), {"SHARDKIT_DOUBLE_DEVICES=0"});
    CHECK(contains(refusal, "cudaGetDeviceCount failed: cudaErrorNoDevice"));
    CHECK(contains(refusal, "no GPU can be used here: look for the driver with nvidia-smi"));
  }
  const std::string refusal = refusal_of(llama(arguments + command_line{"--device", "cuda"}));
  CHECK(contains(refusal, "--device cuda: this program was built without CUDA. Run llama_cuda"));
}

TEST_CASE("A checkpoint that only one stage finds broken ends all ranks on GPUs") {
  const tiny_checkpoint model;
  model.remove_tensor("lm_head.weight");
  const outcome ended = run(on_cuda({"--model", model.path(), "--tokens", "1", "--print-tokens", "--pipeline", "2"}));
  if (skips(ended)) return;
  CHECK(ended.in_time);
  CHECK(ended.status == 1);
  CHECK(contains(ended.errors, "has no tensor 'lm_head.weight'"));
}

#ifdef MPIEXEC
TEST_CASE("Processes of an MPI launcher that share a GPU give the tokens of the host") {
  const tiny_checkpoint model;
  for (const mesh& ranks : {mesh{2, 1, 1}, mesh{1, 2, 1}}) {
    CAPTURE(ranks.name());
    const command_line arguments =
        command_line{"--model", model.path(), "--tokens", "7,8,9", "--steps", "6", "--print-tokens"} +
        ranks.arguments();
    const outcome ended =
        run(launch(MPIEXEC, ranks.ranks(), MPIEXEC_FLAGS, program()) + arguments + command_line{"--device", "cuda"},
            machine("1", "eager"));
    if (!ran_well(ended)) return;
    CHECK(ended.output == output_of(llama(arguments)));
  }
}
#endif

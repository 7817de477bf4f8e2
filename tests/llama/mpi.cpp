// The llama program under an MPI launcher: the same tokens as on thread ranks, and failures that end the job.
#include "checkpoint.hpp"
#include "launcher.hpp"
#include "npy.hpp"

#include <string>

using namespace llama_test;

namespace {

outcome run_under_mpi(int ranks, const command_line& arguments) {
  return run(launch(MPIEXEC, ranks, MPIEXEC_FLAGS) + arguments, {}, 90);
}

// Ends the job: no hang, no answer, and the reason somewhere between the launcher's own lines.
void check_failure(const outcome& ended, const std::string& reason) {
  INFO(ended.errors);
  CHECK(ended.in_time);
  CHECK(ended.status != 0);
  CHECK(ended.output.empty());
  CHECK(contains(ended.errors, reason));
}

}  // namespace

TEST_CASE("Processes give the tokens and logits of thread ranks, printed once") {
  const tiny_checkpoint model;
  const directory folder;
  write_file(folder / "prompts", lines_of({prompt_of(5), prompt_of(66), prompt_of(1)}));
  for (const mesh& ranks : {mesh{2, 1, 1}, mesh{1, 2, 1}, mesh{2, 1, 2}}) {
    CAPTURE(ranks.name());
    const command_line arguments =
        command_line{"--model", model.path(), "--tokens-file", folder / "prompts", "--steps", "10", "--print-tokens"} +
        ranks.arguments();
    const outcome ended = run_under_mpi(ranks.ranks(), arguments);
    INFO(ended.errors);
    CHECK(ended.in_time);
    CHECK(ended.status == 0);
    CHECK(ended.output == output_of(llama(arguments)));
  }
  const command_line single = command_line{"--model", model.path(),     "--tokens",   "1,2,3", "--steps",
                                           "1",       "--print-tokens", "--pipeline", "2",     "--logits"};
  CHECK(run_under_mpi(2, single + command_line{folder / "processes.npy"}).status == 0);
  CHECK(run(llama(single + command_line{folder / "threads.npy"})).status == 0);
  CHECK(relative_error(read_npy(folder / "processes.npy"), read_npy(folder / "threads.npy")) == 0);
}

TEST_CASE("A mesh of another size than the launcher's is refused") {
  const tiny_checkpoint model;
  const command_line arguments = {"--model", model.path(), "--tokens", "1", "--steps", "3", "--print-tokens"};
  check_failure(run_under_mpi(2, arguments + mesh{3, 1, 1}.arguments()),
                "data 1 x pipeline 1 x tensor 3 makes 3 ranks, the communicator 'world' has 2");
  check_failure(run_under_mpi(2, arguments), "makes 1 ranks, the communicator 'world' has 2");
}

TEST_CASE("Started as one process by a launcher, the ranks are threads") {
  const tiny_checkpoint model;
  const command_line arguments = {"--model", model.path(),     "--tokens", "1", "--steps",
                                  "3",       "--print-tokens", "--tensor", "2"};
  const outcome ended = run_under_mpi(1, arguments);
  CHECK(ended.status == 0);
  CHECK(ended.output == output_of(llama(arguments)));
}

TEST_CASE("A checkpoint that only one process finds broken ends all of them") {
  const tiny_checkpoint model;
  model.remove_tensor("lm_head.weight");  // the last stage's
  check_failure(run_under_mpi(2, {"--model", model.path(), "--tokens", "1", "--print-tokens", "--pipeline", "2"}),
                "has no tensor 'lm_head.weight'");
  const std::string whole = read_file(model.weights());
  write_file(model.weights(), whole.substr(0, whole.size() / 2));
  check_failure(run_under_mpi(2, {"--model", model.path(), "--tokens", "1", "--print-tokens", "--tensor", "2"}),
                "is it incomplete?");
}

TEST_CASE("Started by another MPI's launcher, the program is refused instead of running as separate jobs") {
  const std::string foreign = FOREIGN_MPIEXEC;
  if (foreign.empty()) {
    MESSAGE("not tested: there is no second MPI library here");
    return;
  }
  const tiny_checkpoint model;
  check_failure(run(launch(foreign, 2) + command_line{"--model", model.path(), "--tokens", "1", "--steps", "3",
                                                      "--print-tokens", "--tensor", "2"}),
                "it belongs to another MPI library than this program is built with");
}

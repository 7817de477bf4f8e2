// Runs the pipeline a number of times: pipeline_program BUG RUNS. Says what came of it; ThreadSanitizer adds its own.
// With 0 runs it runs once and asks for no report.
#include <cuda_double/pipeline.hpp>

#include <algorithm>

using namespace cuda_double_test;

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto name = std::find(bug_names.begin(), bug_names.end(), argv[1]);
  if (name == bug_names.end()) return 2;
  const int runs = std::atoi(argv[2]);
  const bug left_out = static_cast<bug>(name - bug_names.begin());
  if (runs == 0) {
    shardkit_double::set_device_count(3);
    run_pipeline(left_out);
    return 0;
  }
  int wrong = 0, reported = 0, races = 0;
  for (int run = 0; run < runs; ++run) {
    shardkit_double::reset();
    shardkit_double::set_device_count(3);
    shardkit_double::set_threads_order_by_events_only(true);
    if (run_pipeline(left_out) != 0) ++wrong;
    const auto found = shardkit_double::reset();
    if (!found.empty()) ++reported;
    const bool race = std::any_of(found.begin(), found.end(),
                                  [](const auto& r) { return r.kind == shardkit_double::report_kind::race; });
    if (race) ++races;
    if (run == 0 && !found.empty()) std::printf("%s: %s\n", to_string(found[0].kind), found[0].text.c_str());
  }
  std::printf("runs %d, wrong data in %d, reports in %d, races in %d\n", runs, wrong, reported, races);
}

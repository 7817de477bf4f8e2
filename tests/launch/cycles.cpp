// Launches of TCP ranks that fail and come again leave no thread, no descriptor and no byte behind.
#include <doctest/doctest.h>
#include <support/counted_heap.hpp>
#include "tcp_ranks.hpp"

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#ifndef SHARDKIT_TEST_CYCLES
#define SHARDKIT_TEST_CYCLES 40
#endif

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

auto count(const char* folder) {
  return std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
}

/// Every way in which a launch ends: well, by an exception, by calls that differ, by a message that nobody takes.
void cycle(int number) {
  const int way = number % 4;
  const auto outcomes = on_tcp_ranks(3, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    auto child = comm.split(comm.rank() % 2);
    std::vector<int> data(comm.rank() == 2 && way == 2 ? 5 : 4, 1);
    if (way == 1 && comm.rank() == 2) throw std::runtime_error("again");
    comm.all_reduce(shardkit::in_place(data), shardkit::sum);
    if (way == 3 && comm.rank() == 0) child.send(data, 1);
    comm.barrier();
  });
  for (const outcome& one : outcomes) {
    CAPTURE(one.text);
    CHECK(has(one.text, "again") == (way == 1));
    CHECK(has(one.text, "ranks make different calls") == (way == 2));
    CHECK((one.text == "") == (way == 0 || way == 3));
  }
}

}  // namespace

TEST_CASE("launches that fail and come again leave no thread, no descriptor and no byte behind") {
  for (int i = 0; i < 4; ++i) cycle(i);  // what the system itself sets up once
  const auto descriptors = count("/proc/self/fd"), threads = count("/proc/self/task");
  const long long bytes = counted_heap::live_bytes;
  for (int i = 0; i < SHARDKIT_TEST_CYCLES; ++i) cycle(i);
  CHECK(counted_heap::live_bytes == bytes);
  CHECK(count("/proc/self/fd") == descriptors);
  // The system takes a joined thread off its list a little later.
  for (int wait = 0; wait < 200 && count("/proc/self/task") != threads; ++wait) shardkit::detail::sleep_seconds(0.01);
  CHECK(count("/proc/self/task") == threads);
}

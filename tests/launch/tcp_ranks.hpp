// TCP ranks as threads of one process: each has an environment of its own, and knows the others only by the port.
#pragma once

#include <shardkit/backends/tcp.hpp>

#include <exception>
#include <future>
#include <string>
#include <thread>
#include <vector>

/// What became of a rank: "" where its body returned, else the text of the exception.
struct outcome {
  std::exception_ptr error;
  std::string text;
};

inline shardkit::tcp_options tcp_test_options(double operation = 20) {
  shardkit::tcp_options options;
  options.where.token = "a token for tests";
  options.limits.init = 20;
  options.limits.operation = operation;
  options.limits.abort = 5;
  return options;
}

/// body(environment) on every rank; rank 0 takes any free port.
template <class Body>
std::vector<outcome> on_tcp_environments(int ranks, shardkit::tcp_options options, Body body) {
  std::promise<int> chosen;
  const std::shared_future<int> port = chosen.get_future().share();
  std::vector<outcome> outcomes(static_cast<std::size_t>(ranks));
  options.size = ranks;
  const auto run = [&](int rank) {
    outcome& mine = outcomes[static_cast<std::size_t>(rank)];
    try {
      shardkit::tcp_options own = options;
      own.rank = rank;
      if (rank == 0) own.where.on_listening = [&](int taken) { chosen.set_value(taken); };
      else own.where.port = std::shared_future<int>(port).get();
      shardkit::tcp_environment environment(own);
      body(environment);
    } catch (const std::exception& failure) {
      mine = {std::current_exception(), failure.what()};
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

/// The same with the world.
template <class Body>
std::vector<outcome> on_tcp_ranks(int ranks, const shardkit::tcp_options& options, Body body) {
  return on_tcp_environments(ranks, options, [&](shardkit::tcp_environment& environment) { environment.run(body); });
}

template <class Error>
bool is(const outcome& one) {
  if (!one.error) return false;
  try {
    std::rethrow_exception(one.error);
  } catch (const Error&) {
    return true;
  } catch (...) {
    return false;
  }
}

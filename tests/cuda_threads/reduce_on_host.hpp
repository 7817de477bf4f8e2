// A kernel for reductions in rank order that needs no nvcc: the host combines, on the stream.
#pragma once

#include <shardkit/core/ordered_reduce.hpp>
#include <shardkit/cuda/space.hpp>

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace cuda_threads_test {

using namespace shardkit;

/// The host's combination of elements of this type.
inline reduce_function combination_of(dtype type) {
  constexpr reduce_function combinations[] = {detail::ordered_reduce_of<dtype::f64>(),
                                              detail::ordered_reduce_of<dtype::f32>(),
                                              detail::ordered_reduce_of<dtype::f16>(),
                                              detail::ordered_reduce_of<dtype::bf16>(),
                                              nullptr,
                                              nullptr,
                                              detail::ordered_reduce_of<dtype::i64>(),
                                              detail::ordered_reduce_of<dtype::i32>(),
                                              detail::ordered_reduce_of<dtype::i16>(),
                                              detail::ordered_reduce_of<dtype::i8>(),
                                              detail::ordered_reduce_of<dtype::u64>(),
                                              detail::ordered_reduce_of<dtype::u32>(),
                                              detail::ordered_reduce_of<dtype::u16>(),
                                              detail::ordered_reduce_of<dtype::u8>(),
                                              detail::ordered_reduce_of<dtype::boolean>()};
  const reduce_function combine = combinations[static_cast<std::size_t>(type)];
  if (combine == nullptr) throw unsupported_error(std::string("this kernel does not combine ") + name_of(type));
  return combine;
}

/// A cuda_thread_options::ordered_reduce.
inline void reduce_on_host(reduction_kind kind, dtype type, const void* const* inputs, int input_count,
                           void* const* outputs, int output_count, std::size_t count, at<cuda_space> where) {
  struct work {
    reduction_kind kind;
    reduce_function combine;
    std::size_t count;
    std::vector<std::vector<char>> in;
    std::vector<char> out;
  };
  const std::size_t bytes = count * size_of(type);
  // Where a call fails, the stream may or may not come to what was queued before it: such a job stays here.
  static std::mutex lock;
  static auto& jobs = *new std::map<work*, std::unique_ptr<work>>;
  auto fresh = std::make_unique<work>(work{kind, combination_of(type), count, {}, std::vector<char>(bytes)});
  work* const job = fresh.get();
  {
    const std::lock_guard<std::mutex> held(lock);
    jobs[job] = std::move(fresh);
  }
  const cudaStream_t stream = where.stream.handle;
  for (int input = 0; input < input_count; ++input) {
    job->in.emplace_back(bytes);
    cuda_space::copy(job->in.back().data(), inputs[input], bytes, where);
  }
  cuda_check(cudaLaunchHostFunc(
                 stream,
                 [](void* given) {
                   auto& the = *static_cast<work*>(given);
                   std::vector<const void*> from;
                   for (const std::vector<char>& one : the.in) from.push_back(one.data());
                   void* to = the.out.data();
                   the.combine(the.kind, from.data(), static_cast<int>(from.size()), &to, 1, the.count);
                 },
                 job),
             "cudaLaunchHostFunc", stream);
  for (int output = 0; output < output_count; ++output)
    cuda_space::copy(outputs[output], job->out.data(), bytes, where);
  cuda_check(cudaLaunchHostFunc(
                 stream,
                 [](void* given) {
                   const std::lock_guard<std::mutex> held(lock);
                   jobs.erase(static_cast<work*>(given));
                 },
                 job),
             "cudaLaunchHostFunc", stream);
}

}  // namespace cuda_threads_test

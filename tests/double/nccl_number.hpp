// What NCCL's reductions compute, element by element, in rank order: the arithmetic of the NCCL double.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <vector>

namespace shardkit_double::nccl {

/// Bytes of one element; 0 for a type that NCCL does not have.
std::size_t bytes_of(ncclDataType_t type);

/// "f32", "bf16": for reports.
const char* name_of(ncclDataType_t type);

/// "sum", "premulsum": for reports.
const char* name_of(ncclRedOp_t op);

/// A reduction as it stands when the collective is called: a made operator may be destroyed before the data move.
struct reduction {
  ncclRedOp_t op = ncclSum;  ///< one of the built-in five, or ncclNumOps for a made pre-multiplied sum
  int ranks = 1;             ///< divisor of the average
  std::vector<std::vector<std::byte>> scalars;  ///< of a pre-multiplied sum: each rank's factor, in the element type
};

/// Reduces inputs[0..n) element by element in rank order and writes each result to every one of `outputs`. An output
/// may be one of the inputs. f64 is accumulated in f64, every other float in f32 and rounded once; integers wrap. As
/// in NCCL, minimum and maximum drop NaN where there is a number, the average of integers divides the sum, the average
/// of floats multiplies every input by 1/n rounded to the type, and results of 8-bit floats saturate.
void reduce(ncclDataType_t type, const reduction& how, const std::vector<const std::byte*>& inputs,
            const std::vector<std::byte*>& outputs, std::size_t count);

}  // namespace shardkit_double::nccl

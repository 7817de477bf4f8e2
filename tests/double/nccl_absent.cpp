// What <double/nccl_control.hpp> comes to in a program that is linked with the real NCCL: nothing.
#include <double/nccl_control.hpp>

namespace shardkit_double::nccl {

void set_version(int) {}
void allow_duplicate_gpu(bool) {}
void set_group_limit(int) {}
void hold_initialisation(double) {}
void hold_enqueue(int) {}
void connect_on_first_use(bool) {}
void set_patience(double) {}
void stop_rank(int, bool) {}
void slow_rank(int, double) {}
void fail_asynchronously(int, int, int) {}
int live_communicators() { return 0; }

}  // namespace shardkit_double::nccl

// Who this process is among those that a launcher started, read from what mpiexec (Open MPI, MPICH, Intel), torchrun or
// srun leave in the environment, or from explicit values. Needs no MPI. Half-set and contradictory variables are
// refused by name: a rank that guesses makes the others wait.
#pragma once

#include <shardkit/comm/detail/launchers.hpp>
#include <shardkit/core/error.hpp>
#include <shardkit/launch/detail/slurm_lists.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace shardkit {

/// Looks a variable up: null where it is not set.
using environment_lookup = std::function<const char*(const char* variable)>;

/// A plain value: programs with another way of starting fill it themselves and call `require_valid`.
struct launch_environment {
  int rank = 0;                      ///< of this process, from 0
  int size = 1;                      ///< ranks of the launch
  int local_rank = 0;                ///< among the ranks of this node; -1: the launcher does not say
  int local_size = 1;                ///< ranks of this node; -1: the launcher does not say
  std::string launcher;              ///< "torchrun", "srun", ...; empty: nothing was found, a process by itself
  std::vector<std::string> matched;  ///< the variables that were believed, as "RANK=3"
  std::string host;  ///< where rank 0 can be reached: MASTER_ADDR, or srun's first host; empty: not known
  int port = 0;      ///< the first port to try there; 0: not known
  int ports = 1;     ///< how many ports from that one on rank 0 may choose from
  std::string job;   ///< tells this launch from others: a run id, job and step; empty: not known

  /// Reads SHARDKIT_RANK and SHARDKIT_SIZE (with SHARDKIT_LOCAL_RANK, SHARDKIT_LOCAL_SIZE, SHARDKIT_HOST,
  /// SHARDKIT_PORT, SHARDKIT_JOB_TOKEN where wanted), which count before any launcher; else the variables of Open MPI,
  /// of MPICH or Intel MPI, of torchrun, of an srun step. Nothing set: one process. Throws usage_error naming the
  /// variables that are incomplete, not numbers, or contradict each other: half of a launcher's variables, its local
  /// ones alone included, or a SHARDKIT_ variable where nothing says which rank this is, would start as many jobs of
  /// one rank as there are processes.
  static launch_environment detect(const environment_lookup& variable = [](const char* name) -> const char* {
    return std::getenv(name);
  });

  /// Throws usage_error where a rank is not below its size, or the node has more ranks than the launch.
  void require_valid() const {
    const auto refuse = [this](const std::string& why) { throw usage_error("launch environment: " + why + found()); };
    if (size < 1) refuse("the size is " + std::to_string(size) + "; it has to be at least 1");
    if (rank < 0 || rank >= size)
      refuse("rank " + std::to_string(rank) + " is not below the size " + std::to_string(size));
    if (local_size > size)
      refuse("the node has " + std::to_string(local_size) + " ranks, the whole launch " + std::to_string(size));
    if (local_rank < -1 || (local_size != -1 && (local_size < 1 || local_rank >= local_size)))
      refuse("local rank " + std::to_string(local_rank) + " is not below the local size " + std::to_string(local_size));
    if (local_rank >= size)
      refuse("local rank " + std::to_string(local_rank) + " is not below the size " + std::to_string(size));
    if (port < 0 || ports < 1 || port + ports > 65536)
      refuse("port " + std::to_string(port) + " is not from 0 to 65535");
  }

  /// "rank 3 of 8, local rank 1 of 4, by torchrun (RANK=3, ...)".
  std::string describe() const {
    const auto number = [](int value) { return value == -1 ? std::string("?") : std::to_string(value); };
    std::string text = "rank " + std::to_string(rank) + " of " + std::to_string(size) + ", local rank " +
                       number(local_rank) + " of " + number(local_size);
    return launcher.empty() ? text + ", no launcher" : text + ", by " + launcher + found();
  }

 private:
  std::string found() const {
    std::string text;
    for (const std::string& one : matched) text += (text.empty() ? " (" : ", ") + one;
    return text.empty() ? text : text + ")";
  }
};

namespace detail {

/// Reads the variables of one launcher after the other.
class environment_reader {
 public:
  explicit environment_reader(const environment_lookup& variable) : variable_(variable) {}

  launch_environment read() const {
    if (launch_environment given; complete(explicit_variables, given)) return finished(given);
    launch_environment open_mpi, hydra, torchrun, srun;
    const bool by_open_mpi = complete(open_mpi_variables, open_mpi), by_hydra = complete(hydra_variables, hydra);
    const bool by_mpiexec = by_open_mpi || by_hydra;
    if (by_open_mpi && by_hydra) require_same(open_mpi, hydra);
    // Another launcher's half-set variables mean nothing to a process that mpiexec has numbered.
    if (by_mpiexec && !has_both(torchrun_variables)) return finished(by_open_mpi ? open_mpi : hydra);
    const bool by_torchrun = complete(torchrun_variables, torchrun);
    if (by_mpiexec) {
      require_same(by_open_mpi ? open_mpi : hydra, torchrun);
      return finished(by_open_mpi ? open_mpi : hydra);
    }
    // A batch script has SLURM_PROCID without being a rank.
    const bool by_srun = has(srun_variables.size) && complete(srun_variables, srun);
    if (by_torchrun) {
      // An srun that starts one torchrun for each node counts those; TORCHELASTIC_RUN_ID shows that one is there.
      if (by_srun && !has("TORCHELASTIC_RUN_ID")) require_same(torchrun, srun);
      read_master(torchrun);
      torchrun.job = joined("torchrun", {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"});
      return finished(torchrun);
    }
    if (by_srun) {
      read_step(srun);
      return finished(srun);
    }
    if (has("PMIX_RANK"))
      throw usage_error("launch environment: PMIX_RANK=" + text("PMIX_RANK") +
                        " says that a launcher started this process, but PMIx has no variable for the number of ranks; "
                        "let MPI tell it (mpi_environment), or set SHARDKIT_RANK and SHARDKIT_SIZE");
    require_no_meeting();
    return finished({});
  }

 private:
  const char* get(const char* name) const { return name == nullptr ? nullptr : variable_(name); }
  bool has(const char* name) const { return get(name) != nullptr; }
  bool has_both(const launcher_variables& names) const { return has(names.rank) && has(names.size); }
  std::string text(const char* name) const { return has(name) ? get(name) : ""; }

  int number(launch_environment& into, const char* name) const {
    const char* given = get(name);
    char* end = nullptr;
    const long value = std::strtol(given, &end, 10);
    // strtol lets spaces and a sign come first.
    if (*given < '0' || *given > '9' || *end != '\0' || value > 0x7fffffff)
      throw usage_error(std::string("launch environment: ") + name + " is '" + given +
                        "', which is not a number from 0 on; correct it or unset it");
    into.matched.push_back(std::string(name) + "=" + given);
    return static_cast<int>(value);
  }

  /// Rank and size of one launcher; false where it set nothing.
  bool complete(const launcher_variables& names, launch_environment& into) const {
    const char* there = nullptr;
    for (const char* name : {names.local_size, names.local_rank, names.size, names.rank})
      if (has(name)) there = name;
    // A batch script has SLURM_LOCALID without being a rank.
    if (there == nullptr || there == srun_variables.local_rank) return false;
    if (!has_both(names)) refuse_half(names, there, has(names.rank) ? names.size : names.rank);
    if (has(names.local_size) && !has(names.local_rank)) refuse_half(names, names.local_size, names.local_rank);
    into.launcher = names.launcher;
    into.rank = number(into, names.rank);
    into.size = number(into, names.size);
    into.local_rank = has(names.local_rank) ? number(into, names.local_rank) : -1;
    into.local_size = has(names.local_size) ? number(into, names.local_size) : -1;
    into.require_valid();
    return true;
  }

  [[noreturn]] void refuse_half(const launcher_variables& names, const char* there, const char* missing) const {
    throw usage_error(std::string("launch environment: ") + there + "=" + get(there) + " is set without " + missing +
                      ", both of " + names.launcher + "; set both, or unset " + there +
                      (missing == names.local_rank ? "" : " to run as one process"));
  }

  /// Whoever names a place to meet means to meet somebody.
  void require_no_meeting() const {
    for (const char* name : {"SHARDKIT_HOST", "SHARDKIT_PORT", "SHARDKIT_LISTEN", "SHARDKIT_JOB_TOKEN"})
      if (has(name))
        throw usage_error(std::string("launch environment: ") + name +
                          " is set, but nothing says which rank this process is; set SHARDKIT_RANK and SHARDKIT_SIZE "
                          "too, start it by a launcher, or unset " +
                          name + " to run as one process");
  }

  void require_same(const launch_environment& one, const launch_environment& other) const {
    if (one.rank == other.rank && one.size == other.size) return;
    throw usage_error("launch environment: two launchers contradict each other: " + one.describe() + "; " +
                      other.describe() +
                      "; unset the variables of the one that did not start this process, or set "
                      "SHARDKIT_RANK and SHARDKIT_SIZE");
  }

  void read_master(launch_environment& into) const {
    const bool address = has("MASTER_ADDR");
    if (address != has("MASTER_PORT"))
      throw usage_error(std::string("launch environment: ") + (address ? "MASTER_ADDR" : "MASTER_PORT") +
                        " is set without " + (address ? "MASTER_PORT" : "MASTER_ADDR") + "; set both, or neither");
    if (!address) return;
    into.host = text("MASTER_ADDR");
    into.matched.push_back("MASTER_ADDR=" + into.host);
    into.port = number(into, "MASTER_PORT");
    if (into.port < 1 || into.port > 65535)
      throw usage_error("launch environment: MASTER_PORT is " + text("MASTER_PORT") + ", which is no port");
    // torchrun's own store may listen on MASTER_PORT itself.
    into.port += into.port < 65000 ? 1 : -1000;
    into.ports = alternative_ports;
  }

  void read_step(launch_environment& into) const {
    if (has("SLURM_STEP_NODELIST")) {
      into.host = first_host(text("SLURM_STEP_NODELIST"));
      into.matched.push_back("SLURM_STEP_NODELIST=" + text("SLURM_STEP_NODELIST"));
    }
    if (has("SLURM_STEP_TASKS_PER_NODE") && has("SLURM_NODEID"))
      into.local_size = tasks_of_node(text("SLURM_STEP_TASKS_PER_NODE"), number(into, "SLURM_NODEID"));
    into.job = joined("slurm", {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"});
    // The same for all ranks of a step, another one for most other steps; below the ports that systems hand out.
    std::uint32_t hash = 2166136261u;
    for (const char c : into.job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    into.port = 20000 + static_cast<int>(hash % 12000);
    into.ports = alternative_ports;
  }

  /// Empty where the first of the names is not set: the others do not tell launches apart.
  std::string joined(const char* launcher, std::initializer_list<const char*> names) const {
    std::string all = launcher;
    for (const char* name : names) all += ":" + text(name);
    return has(*names.begin()) ? all : std::string();
  }

  launch_environment finished(launch_environment result) const {
    if (!result.launcher.empty()) {
      if (has("SHARDKIT_HOST")) {
        result.host = text("SHARDKIT_HOST");
        result.matched.push_back("SHARDKIT_HOST=" + result.host);
      }
      if (has("SHARDKIT_PORT")) {
        result.port = number(result, "SHARDKIT_PORT");
        result.ports = 1;
      }
      // Not among those matched: it may be a secret.
      if (has("SHARDKIT_JOB_TOKEN")) result.job = text("SHARDKIT_JOB_TOKEN");
    }
    result.require_valid();
    return result;
  }

  static constexpr int alternative_ports = 8;

  const environment_lookup& variable_;
};

}  // namespace detail

inline launch_environment launch_environment::detect(const environment_lookup& variable) {
  return detail::environment_reader(variable).read();
}

}  // namespace shardkit

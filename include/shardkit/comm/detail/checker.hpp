// What a checked communicator and its requests share: it announces calls, waits until the ranks agree, follows what has
// been started, and keeps what is captured. The comparison itself is in checking.hpp.
#pragma once

#include <shardkit/comm/deadlines.hpp>
#include <shardkit/comm/detail/call_pool.hpp>
#include <shardkit/comm/detail/captured_calls.hpp>
#include <shardkit/comm/detail/checking.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// What a checked communicator and its requests under way share.
template <class Backend>
class checker : public std::enable_shared_from_this<checker<Backend>> {
 public:
  explicit checker(Backend backend)
      : next(std::move(backend)), lane_(next.base().control()), records_(next.rank(), next.size()) {
    if (lane_.claim(control_topic::fingerprint)) return;
    const std::string text =
        "this communicator, or the one that it stands on, is checked already: put checks around it once, on all ranks";
    next.fail(text);
    throw usage_error(text);
  }

  complete<Backend> next;

  /// Runs the action. What this rank finds wrong with the calls, or with what tells of them, ends the others' waits; a
  /// mismatch that a peer has found reaches this rank as the peer's failure, and is what it is here, too.
  template <class Action>
  auto guarded(Action action) -> decltype(action()) {
    try {
      return action();
    } catch (const mismatch_error& found) {
      give_up(found);
    } catch (const usage_error& found) {
      give_up(found);
    } catch (const transport_error& found) {
      give_up(found);
    } catch (const peer_failed& failure) {
      const std::size_t found = failure.message().find(mismatch_words);
      if (found == std::string::npos) throw;
      mismatch_error same(failure.message().substr(found));
      if (failure.context().rank >= 0) same.attach(failure.context());
      throw same;
    }
  }

  // ---- Announcing: the records of a call go out, and those that are here are compared. ------------------------------

  /// What has to be compared before a call is over.
  struct agreement {
    std::uint64_t collective = 0;  // this one and all before it; 0: none
    std::vector<std::pair<int, std::uint64_t>> messages;
  };

  template <class Call>
  void announce(const Call& call, agreement& until, bool waits) {
    require_aligned_in(call, 0);
    require_aligned_out(call, 0);
    const auto none = [](int) { return std::uint64_t{0}; };
    if constexpr (std::is_same<Call, send_call>::value) {
      records_.announce_send(lane_, call.peer, message_bits(call.count, call.type), describe_at(call), waits,
                             call.site);
    } else if constexpr (std::is_same<Call, recv_call>::value) {
      until.messages.emplace_back(
          call.peer, records_.expect_message(call.peer, message_bits(call.count, call.type), describe_at(call)));
    } else if constexpr (std::is_same<Call, send_recv_call>::value) {
      records_.announce_send(lane_, call.to, message_bits(call.send_count, call.type), describe_at(call), waits,
                             call.site);
      until.messages.emplace_back(
          call.from, records_.expect_message(call.from, message_bits(call.recv_count, call.type), describe_at(call)));
    } else if constexpr (std::is_same<Call, group_call>::value) {
      for (std::size_t i = 0; i < call.count; ++i)
        visit([&, this](const auto& one) { this->announce(one, until, false); }, call.calls[i]);
    } else if constexpr (std::is_same<Call, all_to_all_uneven_call>::value) {
      until.collective = records_.announce_collective(
          lane_, fingerprint(call), describe_at(call), call.site,
          [&](int peer) { return std::uint64_t{call.send_layout->count(peer)}; },
          [&](int peer) { return std::uint64_t{call.receive_layout->count(peer)}; });
    } else {
      until.collective =
          records_.announce_collective(lane_, fingerprint(call), describe_at(call), call.site, none, none);
    }
  }

  bool reached(const agreement& until) const { return absent(until) < 0; }
  /// A rank whose record is missing; -1 where none is.
  int absent(const agreement& until) const {
    for (const auto& message : until.messages)
      if (!records_.has_come(message.first, message.second)) return message.first;
    return records_.absent_from(until.collective);
  }

  void receive() { records_.receive(lane_); }

  /// Before a collective that all ranks make now.
  template <class Call>
  void await_collective(const Call& call, const agreement& until) {
    std::string text;
    await(until, call.site, [&, this] {
      if (text.empty()) text = describe_at(call);
      records_.require_no_message_first(until.collective, text);
    });
    records_.require_no_message_first(until.collective, text.empty() ? describe_at(call) : text);
  }
  /// Before a receive that this rank waits for.
  void await_message(const recv_call& call, const agreement& until) {
    receive();
    if (call.peer == next.rank() || reached(until)) return;
    const std::string text = describe_at(call);
    records_.announce_waiting(lane_, call.peer, until.messages.back().second, text, call.site);
    await(until, call.site, [&, this] { records_.require_not_awaited(call.peer, text); });
  }
  void await(const agreement& until, const call_site& site) {
    await(until, site, [] {});
  }

  // ---- Graphs: what is captured is compared on request, not now, when ranks may capture different ones. -------------

  captured_list captured;

  /// Whether the call becomes part of a graph instead of running. Where that cannot be told, this rank gives up.
  template <class Call>
  bool captures(const Call& call) {
    if constexpr (has_captures<space>::value) {
      try {
        return is_captured(call);
      } catch (const error& failure) {
        next.fail(failure.message());
        throw;
      }
    } else {
      return false;
    }
  }

  // ---- Calls under way ---------------------------------------------------------------------------------------------

  class started : public pending_call {
   public:
    request begin(std::shared_ptr<checker> owner, const char* operation, const agreement& until, const call_site& site,
                  request inner) {
      owner_ = std::move(owner);
      operation_ = operation;
      until_.collective = until.collective;
      until_.messages = until.messages;
      site_ = site;
      (void)(inner_ = std::move(inner));  // nvcc sees a request ignored
      if (inner_.active()) owner_->limit_ = inner_.pending()->deadline();
      owner_->under_way_.push_back(this);
      return request(this);
    }

    bool test() override {
      return guarded([&, this] {
        owner_->receive();
        return inner_.test() && owner_->reached(until_);
      });
    }
    void wait() override {
      guarded([&, this] {
        owner_->await(until_, site_);
        inner_.wait();
      });
    }
    double deadline() const noexcept override { return owner_->limit_; }
    [[noreturn]] void expire() override {
      guarded([&, this] {
        if (inner_.active()) inner_.pending()->expire();
        const std::string text = "rank " + std::to_string(owner_->absent(until_)) + " has not told what it does";
        owner_->next.fail(text);
        throw timeout_error(text);
      });
      throw timeout_error("a call that has ended");  // compilers do not see that guarded has thrown
    }
    void release() noexcept override {
      (void)(inner_ = request());
      const std::shared_ptr<checker> owner = std::move(owner_);  // may be the last, and take this object with it
      owner->under_way_.erase(std::find(owner->under_way_.begin(), owner->under_way_.end(), this));
      owner->pool_.give_back(*this);
    }

   private:
    friend class checker;

    template <class Action>
    auto guarded(Action action) -> decltype(action()) {
      try {
        return owner_->guarded(action);
      } catch (error& failure) {
        if (operation_ == nullptr) throw;
        failure.attach({owner_->next.rank(), owner_->next.size(), {}, operation_, 0, site_});
        if (const call_history* history = history_of(owner_->next.base())) history->attach_to(failure);
        throw;
      }
    }

    std::shared_ptr<checker> owner_;
    const char* operation_ = nullptr;
    agreement until_;
    call_site site_;
    request inner_;
  };

  /// `operation` is null where the verb waits for the request by itself: it then explains what is thrown.
  request follow(const char* operation, const agreement& until, const call_site& site, request inner) {
    return pool_.take().begin(this->shared_from_this(), operation, until, site, std::move(inner));
  }

 private:
  using space = typename Backend::space;

  // Called in a catch block.
  [[noreturn]] void give_up(const error& found) {
    next.fail(found.message());
    throw;
  }

  template <class Space, class = void>
  struct has_captures : std::false_type {};
  template <class Space>
  struct has_captures<Space, std::void_t<decltype(std::declval<typename Space::stream>().is_captured())>>
      : std::true_type {};

  template <class Call>
  static bool is_captured(const Call& call) {
    return space::from_native(call.stream).is_captured(call.site);
  }
  static bool is_captured(const group_call& group) {
    return std::any_of(group.calls, group.calls + group.count, [](const any_call& one) {
      return visit([](const auto& call) { return is_captured(call); }, one);
    });
  }

  static std::uint64_t message_bits(std::size_t count, dtype type) noexcept {
    return fingerprint(send_call{nullptr, count, type, 0, nullptr, {}});
  }

  // Between its looks `check` may find that the wait cannot end.
  template <class Check>
  void await(const agreement& until, const call_site& site, Check check) {
    for (receive(); !reached(until); receive()) {
      check();
      const auto is_active = [](const started* one) { return one->inner_.active(); };
      const auto busy = std::find_if(under_way_.begin(), under_way_.end(), is_active);
      if (busy == under_way_.end()) {
        const int peer = absent(until);
        records_.take(peer, lane_.take(peer, control_topic::fingerprint, site));
        continue;
      }
      // A peer may be in a call that this rank has started, and come only when that has gone on.
      started& first = **busy;
      const auto look = [&, this] {
        receive();
        for (std::size_t i = 0; i < under_way_.size(); ++i) (void)under_way_[i]->inner_.test();
        return reached(until) || !first.inner_.active();
      };
      constexpr int spins = 100;
      if (wait_for(spins, first.deadline(), look, [] { return false; }) != wait_result::ready) first.expire();
    }
  }

  control_lane& lane_;
  call_records records_;
  call_pool<started> pool_;
  std::vector<started*> under_way_;
  double limit_ = deadlines().operation;  // in seconds; that of the launch as soon as it is known
};

}  // namespace shardkit::detail

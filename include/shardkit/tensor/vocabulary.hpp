// Both ends of a language model, divided over the vocabulary: the embedding, and the output head with answers that
// never gather the logits. One partition serves both, so that tied weights are one buffer. The cut may be uneven and
// ranks may hold no words, hence no padding of the vocabulary.
#pragma once

#include <shardkit/tensor/column_parallel_linear.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

/// Row ids[i] of a table [vocabulary, hidden] of which each rank holds a range of rows.
template <class Communicator, class T>
class vocabulary_embedding {
 public:
  using space = typename Communicator::space;
  using where = at<space>;
  using table_type = matrix_view<const T, space>;  ///< of a rank: [vocabulary.count(rank), hidden]

  /// `table` [vocabulary.count(rank), hidden].
  vocabulary_embedding(Communicator& comm, matrix_view<const T, space> table, partition vocabulary,
                       call_site site = call_site::current())
      : comm_(&comm), table_(table), cut_(std::move(vocabulary)) {
    const participant who(comm, site);
    detail::require_parts(who, name, "the vocabulary", cut_.parts());
    detail::require_held_once(who, name, "the vocabulary", cut_);
    detail::require_weight_rows(who, name, table_, cut_.count(comm.rank()));
  }
  vocabulary_embedding(Communicator& comm, matrix_view<T, space> table, partition vocabulary,
                       call_site site = call_site::current())
      : vocabulary_embedding(comm, matrix_view<const T, space>(table), std::move(vocabulary), site) {}

  /// y [ids.size(), hidden] = the rows of the whole table, the same bits on every rank: exact but for the sign of
  /// zeros, since only one rank contributes. `ids` (int32, int64, ...) are the same on every rank; on the host one
  /// outside of the vocabulary throws usage_error, on a device its row is zeros. y has no gaps between its rows.
  template <class Ids, class Y>
  replicated<T, space> forward(const Ids& ids, const Y& y, where w = {}) const {
    const auto words = detail::input_of<space>(ids);
    using id_type = typename decltype(words)::value_type;
    static_assert(std::is_integral_v<id_type>, "shardkit: token ids are integers");
    const auto out = detail::matrix_argument<T, space>(y);
    const participant who(*comm_, w.site);
    detail::require_extents(who, name, "y", out, words.size(), table_.rows() == 0 ? out.columns() : table_.columns());
    if (!out.contiguous()) who.reject(name, "the rows of y have gaps between them; pass a matrix without gaps");
    if constexpr (std::is_same_v<space, host_space>)
      for (std::size_t i = 0; i < words.size(); ++i)
        if (static_cast<std::size_t>(words[i]) >= cut_.total())
          who.reject(name, "id " + std::to_string(words[i]) + " at position " + std::to_string(i) +
                               " is outside of the vocabulary of " + std::to_string(cut_.total()));
    operations<space>::gather_rows(table_, cut_.offset(comm_->rank()), words, out, w);
    comm_->all_reduce(in_place(out.flat()), sum, w);
    return {out};
  }

  /// Which words each rank holds.
  const partition& cut() const noexcept { return cut_; }

 private:
  static constexpr const char* name = "vocabulary_embedding";

  Communicator* comm_;
  matrix_view<const T, space> table_;
  partition cut_;
};

/// The output head: logits [rows, vocabulary], of which each rank makes a range of columns.
template <class Communicator, class Weights, class T = typename Weights::value_type>
class vocabulary_head {
 public:
  using space = typename Communicator::space;
  using where = at<space>;

  /// `weights` [vocabulary.count(rank), hidden]: the same as the embedding's table where they are tied.
  vocabulary_head(Communicator& comm, Weights weights, partition vocabulary, column_options<T, space> options = {},
                  call_site site = call_site::current())
      : linear_(comm, std::move(weights), std::move(vocabulary), options, site) {
    detail::require_held_once(participant(comm, site), name, "the vocabulary", linear_.cut());
  }

  /// logits [rows, vocabulary.count(rank)] of x [rows, hidden], for an engine with a sampler of its own. No
  /// communication.
  template <class X, class Y, class Gemm>
  sharded<T, space> local_logits(const X& x, const Y& logits, Gemm&& gemm, where w = {}) const {
    return linear_.forward(x, logits, gemm, w);
  }

  /// Bytes that top_k needs for so many rows; argmax is k = 1.
  std::size_t workspace_bytes(std::size_t rows, std::size_t k = 1) const noexcept {
    return candidates(rows, k) * sizeof(candidate<T>);
  }

  /// ids[m] = the word with the highest of row m's logits over all ranks, the lowest id among equals: the answer that
  /// a serial search of the gathered row would give, the same on every rank. A NaN counts as the highest.
  template <class Logits, class Ids>
  void argmax(const Logits& logits, Ids&& ids, view<std::byte, space> workspace, where w = {}) const {
    const auto words = detail::output_of<space>(std::forward<Ids>(ids));
    using id_type = typename decltype(words)::value_type;
    search("argmax", logits, matrix_view<T, space>(), matrix_view<id_type, space>(words.data(), words.size(), 1),
           workspace, w);
  }

  /// ids[m] (k) = the words with the k highest of row m's logits in descending order, and `values` [rows, k] these
  /// logits; ties and NaN as in argmax. Only k candidates for each rank and row travel. 1 <= k <= vocabulary.
  template <class Logits, class Values, class Ids>
  void top_k(const Logits& logits, const Values& values, const Ids& ids, view<std::byte, space> workspace,
             where w = {}) const {
    using id_type = typename Ids::value_type;
    const auto words = detail::matrix_argument<id_type, space>(ids);
    const auto scores = detail::matrix_argument<T, space>(values);
    detail::require_extents(participant(linear_.communicator(), w.site), "vocabulary_head::top_k", "values", scores,
                            words.rows(), words.columns());
    search("top_k", logits, scores, words, workspace, w);
  }

  /// Which words each rank holds.
  const partition& cut() const noexcept { return linear_.cut(); }

 private:
  static constexpr const char* name = "vocabulary_head";

  std::size_t candidates(std::size_t rows, std::size_t k) const noexcept {
    return static_cast<std::size_t>(linear_.communicator().size()) * rows * k;
  }

  template <class Logits, class Id>
  void search(const char* verb, const Logits& logits, matrix_view<T, space> scores, matrix_view<Id, space> words,
              view<std::byte, space> workspace, const where& w) const {
    static_assert(std::is_integral_v<Id>, "shardkit: token ids are integers");
    auto& comm = linear_.communicator();
    const auto mine = detail::sharded_input<T, space>(logits);
    static_assert(!detail::is_replicated<Logits>::value,
                  "shardkit: these logits are whole on every rank already; search them without the vocabulary_head");
    const participant who(comm, w.site);
    if constexpr (detail::is_sharded<Logits>::value) {
      if (logits.cut != cut())
        who.reject(verb, "the logits are cut as " + detail::counts_of(logits.cut) + " and the vocabulary as " +
                             detail::counts_of(cut()) + "; give both the same partition");
    }
    const std::size_t rows = words.rows(), k = words.columns();
    detail::require_extents(who, verb, "logits", mine, rows, cut().count(comm.rank()));
    if (k == 0 || k > cut().total())
      who.reject(verb, "there is no top " + std::to_string(k) + " of " + std::to_string(cut().total()) + " words");
    // List r of the workspace [size, rows, k] is rank r's.
    const auto lists = detail::workspace_of<candidate<T>>(who, verb, workspace, candidates(rows, k));
    const std::size_t own = static_cast<std::size_t>(comm.rank()) * rows * k;
    operations<space>::top_k(mine, cut().offset(comm.rank()),
                             matrix_view<candidate<T>, space>(lists.data() + own, rows, k), w);
    comm.all_gather(in_place(view<std::byte, space>(reinterpret_cast<std::byte*>(lists.data()), lists.bytes())), w);
    operations<space>::merge_top_k(lists, static_cast<std::size_t>(comm.size()), scores, words, w);
  }

  column_parallel_linear<Communicator, Weights, T> linear_;
};

}  // namespace shardkit

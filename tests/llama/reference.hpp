// A Llama model as its papers describe it: one token after the other, in double, in plain loops, on one thread.
#pragma once

#include "checkpoint.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace llama_test {

class reference_model {
 public:
  explicit reference_model(const tiny_checkpoint& from) : config_(from.config()) {
    for (const auto& [name, tensor] : read_tensors(from.weights())) weights_[name] = values_of(tensor);
    if (config_.value("tie_word_embeddings", false))
      weights_["lm_head.weight"] = weights_.at("model.embed_tokens.weight");
  }

  /// The logits after a prompt.
  std::vector<double> logits(const token_list& prompt) const {
    history past(size("num_hidden_layers"));
    std::vector<double> result;
    for (int id : prompt) result = step(past, id);
    return result;
  }

  /// The most likely next token, each time, until one of `ends` or so many tokens. The choice has to be a clear one:
  /// where two tokens are almost equally likely, this test could not tell a wrong answer from a rounding error.
  token_list greedy(const token_list& prompt, std::size_t steps, const token_list& ends = {2}) const {
    history past(size("num_hidden_layers"));
    std::vector<double> scores;
    for (int id : prompt) scores = step(past, id);
    token_list answer;
    bool clear = true;
    while (answer.size() < steps) {
      std::vector<double> order = scores;
      std::nth_element(order.begin(), order.begin() + 1, order.end(), std::greater<>());
      clear = clear && order[0] - order[1] > 1e-4 * order[0];
      answer.push_back(static_cast<int>(std::max_element(scores.begin(), scores.end()) - scores.begin()));
      if (std::find(ends.begin(), ends.end(), answer.back()) != ends.end()) break;
      scores = step(past, answer.back());
    }
    REQUIRE(clear);
    return answer;
  }

  /// How many tokens are more likely than `ids[at]` after those before it.
  std::size_t place_of(const token_list& ids, std::size_t at) const {
    const std::vector<double> scores = logits(token_list(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(at)));
    const double own = scores[static_cast<std::size_t>(ids[at])];
    return static_cast<std::size_t>(std::count_if(scores.begin(), scores.end(), [&](double s) { return s > own; }));
  }

 private:
  using vector = std::vector<double>;
  struct layer_history {
    std::vector<vector> keys, values;  // of each position
  };
  using history = std::vector<layer_history>;

  std::size_t size(const char* name) const { return config_.at(name).get<std::size_t>(); }

  vector step(history& past, int id) const {
    const std::size_t width = size("hidden_size");
    const vector& table = weights_.at("model.embed_tokens.weight");
    const auto row = table.begin() + static_cast<std::ptrdiff_t>(width) * id;
    vector hidden(row, row + static_cast<std::ptrdiff_t>(width));
    for (std::size_t i = 0; i < past.size(); ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      add(hidden, attention(layer, norm(hidden, layer + "input_layernorm.weight"), past[i]));
      add(hidden, feed_forward(layer, norm(hidden, layer + "post_attention_layernorm.weight")));
    }
    return product("lm_head.weight", norm(hidden, "model.norm.weight"));
  }

  vector attention(const std::string& layer, const vector& x, layer_history& past) const {
    const std::size_t heads = size("num_attention_heads"), group = heads / size("num_key_value_heads");
    const std::size_t dim = size("head_dim"), position = past.keys.size();
    const vector q = rotated(product(layer + "self_attn.q_proj.weight", x), position);
    past.keys.push_back(rotated(product(layer + "self_attn.k_proj.weight", x), position));
    past.values.push_back(product(layer + "self_attn.v_proj.weight", x));
    vector mixed(heads * dim, 0.0);
    for (std::size_t head = 0; head < heads; ++head) {
      vector share;
      double total = 0;
      for (const vector& key : past.keys) {
        double score = 0;
        for (std::size_t j = 0; j < dim; ++j) score += q[head * dim + j] * key[head / group * dim + j];
        share.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
        total += share.back();
      }
      for (std::size_t t = 0; t < share.size(); ++t)
        for (std::size_t j = 0; j < dim; ++j)
          mixed[head * dim + j] += share[t] / total * past.values[t][head / group * dim + j];
    }
    return product(layer + "self_attn.o_proj.weight", mixed);
  }

  vector feed_forward(const std::string& layer, const vector& x) const {
    vector gate = product(layer + "mlp.gate_proj.weight", x);
    const vector up = product(layer + "mlp.up_proj.weight", x);
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
    return product(layer + "mlp.down_proj.weight", gate);
  }

  vector norm(const vector& x, const std::string& name) const {
    double squares = 0;
    for (double value : x) squares += value * value;
    const double root = std::sqrt(squares / static_cast<double>(x.size()) + config_.at("rms_norm_eps").get<double>());
    vector y = weights_.at(name);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] *= x[i] / root;
    return y;
  }

  // Turns the pair (j, j + dim / 2) of every head by position * base^(-2 j / dim).
  vector rotated(const vector& x, std::size_t position) const {
    const std::size_t dim = size("head_dim"), half = dim / 2;
    vector y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t j = i % dim % half;
      const double angle =
          static_cast<double>(position) * std::pow(base(), -2.0 * static_cast<double>(j) / static_cast<double>(dim));
      y[i] = i % dim < half ? x[i] * std::cos(angle) - x[i + half] * std::sin(angle)
                            : x[i] * std::cos(angle) + x[i - half] * std::sin(angle);
    }
    return y;
  }
  double base() const {
    if (config_.contains("rope_parameters")) return config_["rope_parameters"].at("rope_theta").get<double>();
    return config_.at("rope_theta").get<double>();
  }

  vector product(const std::string& name, const vector& x) const {
    const vector& matrix = weights_.at(name);
    vector y(matrix.size() / x.size(), 0.0);
    for (std::size_t i = 0; i < matrix.size(); ++i) y[i / x.size()] += matrix[i] * x[i % x.size()];
    return y;
  }

  static void add(vector& to, const vector& what) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += what[i];
  }

  json config_;
  std::map<std::string, vector> weights_;
};

}  // namespace llama_test

// Where parses of a text by an Automaton stand: all of them at once, byte by byte.
//
// One parse is a state, a count (of the counted loop that the state lies in) and a stack of returns. The
// stacks of all parses share their parts: a node is the set of places to return to, and equal sets are the
// same node, so that ambiguity costs a wider node and not one stack for each reading (Tomita's
// graph-structured stack, hash-consed). A configuration is the set of parses that may read a byte; equal sets
// are the same number. Nothing is ever changed once made: earlier configurations stay valid, which is what
// makes rollback free.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "text/constrain/automaton.h"

namespace cairn::text::constrain {

// Open addressing from hashes to numbers 0, 1, 2... of things kept elsewhere. The latest may be taken out
// again.
class NumberTable {
 public:
  NumberTable() : slots_(64, 0) {}
  // equal(number): is this the one sought? Returns its number, or `next` after putting that in.
  template <typename Equal>
  uint32_t find_or_add(uint64_t hash, uint32_t next, Equal&& equal) {
    for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i] == 0) {
        slots_[i] = next + 1;
        hashes_.push_back(hash);
        if (hashes_.size() * 2 > slots_.size()) grow();
        return next;
      }
      const uint32_t number = slots_[i] - 1;
      if (hashes_[number] == hash && equal(number)) return number;
    }
  }
  void truncate(uint32_t size);
  size_t bytes() const { return slots_.capacity() * 4 + hashes_.capacity() * 8; }

 private:
  void grow();
  std::vector<uint32_t> slots_;  // number + 1; 0: free
  std::vector<uint64_t> hashes_;
};

class ParseStates {
 public:
  struct Item {
    uint32_t state, count, node;
    bool operator==(const Item&) const = default;
    auto operator<=>(const Item&) const = default;
  };
  using Config = uint32_t;
  static constexpr Config kDead = 0;      // no parse
  static constexpr uint32_t kBottom = 0;  // the node under everything: returning to it is the end

  // The automaton must outlive this.
  explicit ParseStates(const Automaton&);
  // How many items may be looked at from now on; beyond, Error(invalid_argument) says that the grammar is too
  // ambiguous.
  void renew_effort(size_t effort) { effort_ = effort_left_ = effort; }

  Config start();
  Config start_at(uint32_t state, uint32_t count);  // on the bottom
  Config step(Config, uint8_t byte);
  Config step_special(Config, int32_t token);
  Config returned(uint32_t node);  // as if what was called there had just ended; not of the bottom
  // The same as step, remembered; for walks that take the same steps many times.
  Config walk(Config config, uint8_t byte) {
    uint32_t row = row_of_[config];
    if (row == 0) row = new_row(config);
    uint32_t& to = rows_[row - 1][byte];
    if (to == kUnknown) {
      const Config next = step(config, byte);
      rows_[row - 1][byte] = next;  // step may have moved the rows
      return next;
    }
    return to;
  }

  std::span<const Item> items(Config c) const {
    return {pool_.data() + configs_[c].begin, configs_[c].end - configs_[c].begin};
  }
  bool at_end(Config c) const { return configs_[c].end_reached; }  // the bottom may be returned to

  struct Mark {
    uint32_t configs, nodes;
  };
  Mark mark() const { return {uint32_t(configs_.size()), uint32_t(nodes_.size())}; }
  void back_to(Mark);  // forgets what was made since
  size_t bytes() const;

 private:
  struct Span {
    uint32_t begin, end;
    bool end_reached = false;
  };
  using Row = std::array<uint32_t, 256>;
  static constexpr uint32_t kUnknown = 0xffffffff;

  void push(Item);
  void push_new(Item);
  void process(const Item&, bool returns);
  void call(uint32_t rule, const Item& back);
  Config close();
  Config intern();
  uint32_t node(std::vector<Item>& returns);
  uint32_t new_row(Config);

  const Automaton& automaton_;
  size_t effort_ = 0, effort_left_ = 0;

  std::vector<Span> nodes_, configs_;
  std::vector<Item> returns_, pool_;
  NumberTable node_table_, config_table_;
  std::vector<uint32_t> row_of_;
  std::vector<Row> rows_;
  std::vector<Config> with_row_;

  // The closure being made.
  struct Pending {
    uint32_t rank, rule;
    std::vector<Item> returns;
  };
  std::vector<Item> todo_, open_;
  std::vector<Pending> pending_;
  size_t pending_used_ = 0;
  std::vector<Item> seen_;  // searched one by one while few, then through a table of their numbers
  std::vector<uint32_t> seen_table_, seen_round_;
  uint32_t round_ = 0;
  bool end_reached_ = false;
};

}  // namespace cairn::text::constrain

// What each rank holds of a model: a rank is one of several processes that compute it together. Every arrangement of
// layers on ranks is one table of shares; see cqil_share.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "held.h"
#include "program.h"

namespace cqil {

// How shares are made.
enum class Split {
  kLanes,   // each lane of a group whole on one rank; layers outside groups whole on every rank
  kHybrid,  // each lane of a group whole on one rank, if all ranks get equally many; all else in slices
  kTensor,  // every layer in slices
};

// Which part of a model one rank loads.
struct RankSpec {
  int32_t rank;
  Split split;
  std::vector<int32_t> ratios;  // [ranks], see Shares
  Plan plan;                    // the plan whose lanes the ranks hold
};

// Where layers can be cut.
struct Cuts {
  bool attention;       // whether it can be cut between key/value heads; if not, every rank has all of them
  int32_t hidden_unit;  // values of the hidden vector that stay together
};

// Attention can be cut where the output projection's columns of one key/value head are whole blocks of its format. The
// hidden vector is cut between whole blocks of the down projection.
Cuts cuts_of(const cqil_weights& weights);

class Shares {
 public:
  // ratios: [ranks] the proportions in which ranks should share what is divided, one for each rank. What cannot be cut
  // into enough parts is held by some of them, or by all. Throws INVALID_ARGUMENT.
  Shares(const Program& program, const cqil_shape& shape, const Cuts& cuts, Split split,
         const std::vector<int32_t>& ratios);

  int32_t n_ranks() const { return n_ranks_; }
  // The table as rank `rank` is given it, without an exchange. It borrows from this object.
  cqil_ranks view(int32_t rank) const;
  // Throws INVALID_PLAN where shares were made for another program and do not serve this one.
  void expect_serves(const Program& program) const;

 private:
  int32_t n_ranks_ = 1;
  int32_t n_layers_ = 0;
  cqil_share whole_ = {};
  std::vector<cqil_share> shares_;
  std::vector<int32_t> vocabulary_;
  std::vector<int32_t> stages_;  // first layers of the program's stages; empty: the shares serve any program
};

}  // namespace cqil

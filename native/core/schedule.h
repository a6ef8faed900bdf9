// Who computes each step of a program, and who waits for whom: what a backend executes step by step. A pass over the
// finished program, made for one way of computing it and one forward. It changes the time only, never the bits.
#pragma once
#include <vector>

#include "../backend/backend.h"
#include "program.h"
#include "way.h"

namespace cqil {

// What a token reads, in bytes.
struct Sizes {
  std::vector<int64_t> layers;   // the matrices of each layer
  std::vector<int64_t> windows;  // positions that a query of each layer looks back; 0: all
  int64_t head;                  // the output projection
  int64_t position;              // the keys and values of a layer at one position
  int64_t alone;                 // see cqil_model_options::alone_bytes
  bool post_norms;               // whether layers have them
};

Sizes sizes_of(const cqil_weights& weights, const cqil_model_options& options, cqil_dtype kv_dtype);

// The forward that a schedule is for.
struct Extent {
  int32_t position;
  int32_t n_ids;
  bool traced;
};
// rows: at least one.
Extent extent_of(const std::vector<cqil_row>& rows);

struct Schedule {
  std::vector<cqil_step> steps;
  int32_t threads = 1;

  // Borrows steps.
  cqil_schedule view() const;
};

// way.threads: how many threads will compute it, 0 where a device does. `schedule` is overwritten and keeps its memory,
// as every forward places one. ranks: null, or all ranks and which of them this is; every rank places the same program,
// and their schedules have the same exchanges in the same order.
void place(const Program& program, const Way& way, const Sizes& sizes, const Extent& extent, Schedule& schedule,
           const cqil_ranks* ranks = nullptr);

}  // namespace cqil

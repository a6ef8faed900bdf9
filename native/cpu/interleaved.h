// The matrices that int8 products read, with their rows interleaved (kernels/int8_formats.h), in memory of their own:
// as many bytes as they have in the file.
#pragma once
#include <atomic>
#include <unordered_map>
#include <vector>

#include "../backend/backend.h"
#include "buffer.h"
#include "kernels/rounded_kernels.h"

namespace cqil {

class InterleavedWeights {
 public:
  // Holds the formats whose rows `kernels` interleaves, none where it is null. A matrix that base has, the same data,
  // is held there. Both outlive this. Throws std::bad_alloc.
  InterleavedWeights(const cqil_weights& weights, const RoundedKernels* kernels, InterleavedWeights* base);
  InterleavedWeights(const InterleavedWeights&) = delete;

  // The weights, with such matrices as they stand here: valid once take() or take_rest() has brought them here.
  const cqil_weights& view() const { return view_; }
  // Brings rows of the matrix with this data here, n_rows or as many as there are, from one that is a multiple of
  // CQIL_PREPARED_ROWS. False if it has no place here. Calls for other rows may overlap.
  bool take(const void* data, int64_t first_row, int64_t n_rows);
  // All that is left, those of the base included.
  void take_rest();

 private:
  struct Move {
    cqil_tensor from;
    uint64_t offset;  // in the storage
    std::atomic<int64_t> rows_left;
  };
  // Where a matrix of such a format stands, here or in the base.
  uint8_t* place(const void* data) const;

  const RoundedKernels* const kernels_;
  InterleavedWeights* const base_;
  cqil_weights view_;
  std::vector<cqil_layer> layers_;
  Bytes storage_;
  std::unordered_map<const void*, Move> moves_;  // by the data they are read from
};

}  // namespace cqil

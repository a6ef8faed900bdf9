#include "half_table.h"

#include "../../../core/half.h"

namespace cqil {
namespace {

struct HalfTable {
  float values[65536];
  HalfTable() {
    for (unsigned h = 0; h < 65536; h++) values[h] = float_from_f16(static_cast<uint16_t>(h));
  }
};
const HalfTable table;

}  // namespace

const float* const half_table = table.values;

}  // namespace cqil

// Typed handles to call the ops through the dispatcher.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace mmssm {

using OptionalTensor = std::optional<at::Tensor>;
using RoutedScan = at::Tensor(const at::Tensor& x, const at::Tensor& dt,
                              const at::Tensor& A, const at::Tensor& B,
                              const OptionalTensor& C, const OptionalTensor& D,
                              const OptionalTensor& dt_weight,
                              const OptionalTensor& dt_bias,
                              const at::Tensor& routes, bool delta_softplus,
                              std::string_view output,
                              std::optional<at::ScalarType> out_dtype);
using RoutedScanForward = std::tuple<at::Tensor, at::Tensor>(
    const at::Tensor& x, const at::Tensor& dt, const at::Tensor& A,
    const at::Tensor& B, const OptionalTensor& C, const OptionalTensor& D,
    const OptionalTensor& dt_weight, const OptionalTensor& dt_bias,
    const at::Tensor& routes, bool delta_softplus, std::string_view output,
    std::optional<at::ScalarType> out_dtype);
using EightTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                                at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using RoutedScanBackward = EightTensors(
    const at::Tensor& grad, const at::Tensor& checkpoints, const at::Tensor& x,
    const at::Tensor& dt, const at::Tensor& A, const at::Tensor& B,
    const OptionalTensor& C, const OptionalTensor& D,
    const OptionalTensor& dt_weight, const OptionalTensor& dt_bias,
    const at::Tensor& routes, bool delta_softplus, std::string_view output);

using StateFusion = at::Tensor(const at::Tensor& x, const at::Tensor& taps,
                               const OptionalTensor& C, const OptionalTensor& D,
                               const OptionalTensor& u);
using FiveTensors =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using StateFusionBackward = FiveTensors(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& taps,
    const OptionalTensor& C, const OptionalTensor& D, const OptionalTensor& u);

using TreeScan = at::Tensor(const at::Tensor& x, const at::Tensor& dt,
                            const at::Tensor& A, const at::Tensor& B,
                            const OptionalTensor& dt_weight,
                            const OptionalTensor& dt_bias,
                            const at::Tensor& order, bool delta_softplus,
                            std::optional<at::ScalarType> out_dtype);
using SixTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                              at::Tensor, at::Tensor>;
using TreeScanBackward = SixTensors(const at::Tensor& grad, const at::Tensor& x,
                                    const at::Tensor& dt, const at::Tensor& A,
                                    const at::Tensor& B,
                                    const OptionalTensor& dt_weight,
                                    const OptionalTensor& dt_bias,
                                    const at::Tensor& order,
                                    bool delta_softplus);

inline const auto& routed_scan_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmssm::routed_selective_scan", "")
          .typed<RoutedScan>();
  return op;
}

inline const auto& routed_scan_forward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmssm::_routed_selective_scan_forward", "")
          .typed<RoutedScanForward>();
  return op;
}

inline const auto& routed_scan_backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmssm::_routed_selective_scan_backward", "")
          .typed<RoutedScanBackward>();
  return op;
}

inline const auto& state_fusion_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mmssm::state_fusion", "")
                             .typed<StateFusion>();
  return op;
}

inline const auto& state_fusion_backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmssm::_state_fusion_backward", "")
          .typed<StateFusionBackward>();
  return op;
}

inline const auto& tree_scan_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mmssm::tree_scan", "")
                             .typed<TreeScan>();
  return op;
}

inline const auto& tree_scan_backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmssm::_tree_scan_backward", "")
          .typed<TreeScanBackward>();
  return op;
}

}  // namespace mmssm
